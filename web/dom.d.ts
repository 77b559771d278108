// What browsers have and TypeScript's DOM library does not know yet. Everything is optional: the page asks before it uses one.

/** https://w3c.github.io/webrtc-extensions/#rtcrtpcontributingsource-dictionary */
interface RTCRtpContributingSource {
  /** When the picture was captured, on the sender's clock, in milliseconds since 1900 (Chromium). */
  captureTimestamp?: number;
}

/** https://w3c.github.io/webrtc-extensions/#rtp-header-extension-control */
interface RTCRtpHeaderExtensionCapability {
  direction?: RTCRtpTransceiverDirection;
}
interface RTCRtpTransceiver {
  getHeaderExtensionsToNegotiate?(): RTCRtpHeaderExtensionCapability[];
  setHeaderExtensionsToNegotiate?(extensions: RTCRtpHeaderExtensionCapability[]): void;
}

/** iPhones have full screen for a video element only. */
interface HTMLVideoElement {
  webkitEnterFullscreen?(): void;
}

interface Window {
  peercam: import('./main.js').PeercamForTests;
}
