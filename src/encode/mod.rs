//! Raw frames → access units.
