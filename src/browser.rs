//! Opening a browser.
