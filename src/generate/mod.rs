//! Generation: caches, sampling, streams of tokens.
