//! What tests of lanes share.
