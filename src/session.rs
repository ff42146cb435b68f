//! Cached, refreshed or new?
