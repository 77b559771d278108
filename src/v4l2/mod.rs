//! The kernel's video devices: a streaming queue of our own beneath crate `v4l`'s device, formats and controls.
