//! One readable function per flow.
