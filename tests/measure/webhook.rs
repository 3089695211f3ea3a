//! Deliveries to a webhook, at a fixed rate and at maximum throughput.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use beespace_tests::gogs::Delivery;
use reqwest::{Client, RequestBuilder};
use tokio::task::JoinSet;

/// The recorded request with a new delivery id, which is not signed.
fn request(client: &Client, delivery: &Delivery) -> RequestBuilder {
    let mut request = client.post(&delivery.url).body(delivery.body.clone());
    for (name, value) in &delivery.headers {
        if ["Content-Type", "X-Gogs-Event", "X-Gogs-Signature"].contains(name) {
            request = request.header(*name, value);
        }
    }
    request.header("X-Gogs-Delivery", uuid::Uuid::now_v7().to_string())
}

/// Sends a delivery once. Returns the response time.
pub(crate) async fn deliver(client: &Client, delivery: &Delivery) -> Result<Duration> {
    let begin = Instant::now();
    let answer = request(client, delivery).send().await?;
    anyhow::ensure!(answer.status().as_u16() == 202, "{}", answer.status());
    Ok(begin.elapsed())
}

/// Sends deliveries with different bodies at a fixed rate, regardless of the response times.
pub(crate) async fn send_at_rate(delivery: &Delivery, a_second: u32, during: Duration) -> Result<Vec<Duration>> {
    let (client, delivery) = (Client::builder().no_proxy().build()?, Arc::new(delivery.clone()));
    let mut due = tokio::time::interval(Duration::from_secs(1) / a_second);
    let (mut sent, end) = (JoinSet::new(), Instant::now() + during);
    while Instant::now() < end {
        due.tick().await;
        let (client, delivery, number) = (client.clone(), Arc::clone(&delivery), sent.len() as u64);
        sent.spawn(async move { deliver(&client, &delivery.with_new_content(number)).await });
    }
    sent.join_all().await.into_iter().collect()
}

/// Sends deliveries from several senders as fast as possible. Returns the number stored per second.
pub(crate) async fn max_throughput(delivery: &Delivery, senders: usize, during: Duration) -> Result<f64> {
    let (delivery, stored) = (Arc::new(delivery.clone()), Arc::new(AtomicU64::new(0)));
    let (mut tasks, begin) = (JoinSet::new(), Instant::now());
    let client = Client::builder().no_proxy().build()?;
    for sender in 0..senders as u64 {
        let (client, delivery, stored) = (client.clone(), Arc::clone(&delivery), Arc::clone(&stored));
        tasks.spawn(async move {
            let mut number = (sender + 1) << 32;
            while begin.elapsed() < during {
                number += 1;
                deliver(&client, &delivery.with_new_content(number)).await?;
                stored.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    tasks.join_all().await.into_iter().collect::<Result<Vec<()>>>()?;
    Ok(stored.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64())
}
