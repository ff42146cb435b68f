//! What a token says, and whether it may be believed.
