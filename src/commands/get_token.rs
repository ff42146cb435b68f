//! `get_token`
