//! Secrets out of output, across the borders of chunks.
