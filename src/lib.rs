//! A headless camera agent: hardware-encoded H.264 to browsers over WebRTC, signaled over MQTT.
//!
//! A reader who follows one frame from the device node to the socket meets the modules in this order:
//! `capture` → `encode` → `hub` → `net` (the driver) ⇄ `session`. `ARCHITECTURE.md` has the picture.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod agent;
pub mod capture;
pub mod config;
pub mod control;
pub mod encode;
pub mod http;
pub mod hub;
pub mod identity;
pub mod media;
mod memory;
pub mod metrics;
pub mod net;
pub mod protocol;
pub mod relay;
pub mod session;
pub mod signaling;
pub mod telemetry;
mod tls;
pub mod v4l2;
