//! Writing keys and values into a cache in place.
