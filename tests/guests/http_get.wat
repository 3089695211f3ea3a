;; A notifier that sends one GET. Its settings are a JSON string: the scheme's letter ("h" for http, "s" for https), then
;; the authority. If the secret "token" is granted, its placeholder is sent in the header "authorization".
;; It returns ok with the status as the receipt's id, or err(permanent) with the number of wasi:http's error code.
(module
  (type $get (func (param i32 i32)))
  (import "beespace:plugin/config@0.1.0" "get" (func $settings (param i32)))
  (import "beespace:plugin/secrets@0.1.0" "open" (func $open (param i32 i32 i32)))
  (import "beespace:plugin/secrets@0.1.0" "[method]secret.placeholder" (func $placeholder (param i32 i32)))
  (import "wasi:http/types@0.2.12" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.12" "[method]fields.append" (func $append (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.12" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
  (import "wasi:http/types@0.2.12" "[method]outgoing-request.set-scheme"
    (func $set-scheme (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.12" "[method]outgoing-request.set-authority"
    (func $set-authority (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.12" "[method]outgoing-request.set-path-with-query"
    (func $set-path (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/outgoing-handler@0.2.12" "handle" (func $handle (param i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.12" "[method]future-incoming-response.subscribe" (func $subscribe (param i32) (result i32)))
  (import "wasi:http/types@0.2.12" "[method]future-incoming-response.get" (func $get (type $get)))
  (import "wasi:http/types@0.2.12" "[method]incoming-response.status" (func $status (param i32) (result i32)))
  (import "wasi:io/poll@0.2.12" "[method]pollable.block" (func $block (param i32)))
  (memory (export "memory") 17)
  (global $next (mut i32) (i32.const 65536))
  (data (i32.const 1024) "token")
  (data (i32.const 1040) "authorization")
  (data (i32.const 1056) "/hook?secret=in-the-query")

  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (global.set $next (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
    (local.set $at (global.get $next))
    (global.set $next (i32.add (global.get $next) (local.get $size)))
    (local.get $at))

  (func (export "beespace:plugin/lifecycle@0.1.0#validate-config") (param i32 i32) (result i32) (i32.const 512))

  ;; three digits at 1200
  (func $digits (param $n i32)
    (i32.store8 (i32.const 1200) (i32.add (i32.const 48) (i32.div_u (local.get $n) (i32.const 100))))
    (i32.store8 (i32.const 1201)
      (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $n) (i32.const 10)) (i32.const 10))))
    (i32.store8 (i32.const 1202) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10)))))

  ;; result<receipt, send-error> at 256: ok, with the digits as its id
  (func $ok (param $n i32) (result i32)
    (call $digits (local.get $n))
    (i32.store (i32.const 264) (i32.const 1200))
    (i32.store (i32.const 268) (i32.const 3))
    (i32.const 256))

  ;; err(permanent(digits))
  (func $err (param $n i32) (result i32)
    (call $digits (local.get $n))
    (i32.store8 (i32.const 256) (i32.const 1))
    (i32.store8 (i32.const 264) (i32.const 1))
    (i32.store (i32.const 272) (i32.const 1200))
    (i32.store (i32.const 276) (i32.const 3))
    (i32.const 256))

  (func (export "beespace:plugin/notifier@0.1.0#send") (param i32) (result i32)
    (local $headers i32) (local $request i32) (local $future i32) (local $text i32) (local $length i32)
    (call $settings (i32.const 300))
    (local.set $text (i32.load (i32.const 300)))
    (local.set $length (i32.load (i32.const 304)))
    (local.set $headers (call $fields))
    (call $open (i32.const 1024) (i32.const 5) (i32.const 320))
    (if (i32.eqz (i32.load8_u (i32.const 320)))
      (then
        (call $placeholder (i32.load (i32.const 324)) (i32.const 340))
        (call $append (local.get $headers) (i32.const 1040) (i32.const 13)
          (i32.load (i32.const 340)) (i32.load (i32.const 344)) (i32.const 360))))
    (local.set $request (call $request (local.get $headers)))
    ;; the quote, the letter, the authority, the quote; scheme 0 is http, 1 is https
    (drop (call $set-scheme (local.get $request) (i32.const 1)
      (i32.eq (i32.load8_u (i32.add (local.get $text) (i32.const 1))) (i32.const 115)) (i32.const 0) (i32.const 0)))
    (if (call $set-authority (local.get $request) (i32.const 1)
          (i32.add (local.get $text) (i32.const 2)) (i32.sub (local.get $length) (i32.const 3)))
      (then (return (call $err (i32.const 900)))))
    (drop (call $set-path (local.get $request) (i32.const 1) (i32.const 1056) (i32.const 25)))
    ;; result<future, error-code>: the code is at 408, the future too
    (call $handle (local.get $request) (i32.const 0) (i32.const 0) (i32.const 400))
    (if (i32.load8_u (i32.const 400)) (then (return (call $err (i32.load8_u (i32.const 408))))))
    (local.set $future (i32.load (i32.const 408)))
    (call $block (call $subscribe (local.get $future)))
    ;; option<result<result<response, error-code>>>: inner result at 472, its payload at 480
    (call $get (local.get $future) (i32.const 456))
    (if (i32.load8_u (i32.const 472)) (then (return (call $err (i32.load8_u (i32.const 480))))))
    (call $ok (call $status (i32.load (i32.const 480))))))
