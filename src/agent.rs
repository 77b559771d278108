//! The composition root: builds the parts, wires their channels, supervises them, drains them.
