// @ts-check
/**
 * The video element: shows a stream at once, tells each frame and the silence between them, and keeps the last picture on the screen while
 * a session is replaced.
 */

/** Longer than the pauses that a lossy path makes, short enough that a person has not yet begun to wonder. */
const STALL_MS = 2000;
/** A silence that is worth a look, though not a word. */
const HUSH_MS = 500;
const WATCH_MS = 100;

/**
 * @typedef {object} PlayerEvents
 * @property {(metadata: VideoFrameCallbackMetadata) => void} frame a frame is shown; only in browsers with requestVideoFrameCallback
 * @property {() => void} alive pictures come: called for the first one, and the first one after a silence
 * @property {() => void} hushed no picture for a moment; called once for each silence
 * @property {(silentMs: number) => void} stalled no picture for so long; called again and again
 * @property {(blocked: boolean) => void} blocked the browser plays only after a tap
 */

export class Player {
  /** @type {MediaStream | undefined} */ #stream;
  /** When the newest frame was decoded, as performance.now; the attaching counts as one. */
  #lastFrame = 0;
  #decoded = 0;
  #silent = true;
  #hushed = false;

  /**
   * @param {HTMLVideoElement} video
   * @param {HTMLCanvasElement} still lies beneath the video
   * @param {PlayerEvents} events
   */
  constructor(video, still, events) {
    this.video = video;
    this.still = still;
    this.events = events;
    // Set here too: the attribute alone does not count for a video that is made to play by a script, in some browsers.
    video.muted = true;
    setInterval(() => this.#watch(), WATCH_MS);
    document.addEventListener('visibilitychange', () => {
      // Nothing is shown to nobody: the silence begins when somebody looks.
      this.#lastFrame = performance.now();
      if (!document.hidden && this.#stream) this.play();
    });
    if ('requestVideoFrameCallback' in video) {
      const next = () =>
        video.requestVideoFrameCallback((_now, metadata) => {
          next();
          if (!this.#stream) return;
          this.events.frame(metadata);
          this.#alive();
        });
      next();
    }
  }

  /** @param {MediaStream} stream */
  attach(stream) {
    this.#stream = stream;
    this.#lastFrame = performance.now();
    this.#decoded = 0;
    this.#silent = true;
    this.video.srcObject = stream;
    this.play();
  }

  /** Begins to play, also from a tap. */
  play() {
    this.video.play().then(
      () => this.events.blocked(false),
      (error) => {
        // AbortError: another stream was attached meanwhile.
        if (error instanceof DOMException && error.name === 'NotAllowedError') this.events.blocked(true);
      },
    );
  }

  /** Ends the stream; its last picture stays, dimmed. */
  detach() {
    if (!this.#stream) return;
    const { video, still } = this;
    if (video.videoWidth > 0 && video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA) {
      still.width = video.videoWidth;
      still.height = video.videoHeight;
      still.getContext('2d')?.drawImage(video, 0, 0);
    }
    this.#stream = undefined;
    video.srcObject = null;
  }

  /**
   * The counter of decoded frames, for browsers that tell no frames and pages that show none.
   * @param {number} framesDecoded
   */
  decoded(framesDecoded) {
    if (this.#stream && framesDecoded > this.#decoded) this.#alive();
    this.#decoded = framesDecoded;
  }

  #alive() {
    this.#lastFrame = performance.now();
    this.#hushed = false;
    if (!this.#silent) return;
    this.#silent = false;
    this.events.alive();
  }

  #watch() {
    const silentMs = performance.now() - this.#lastFrame;
    if (!this.#stream || document.hidden || this.video.paused) return;
    if (silentMs >= HUSH_MS && !this.#hushed) {
      this.#hushed = true;
      this.events.hushed();
    }
    if (silentMs < STALL_MS) return;
    this.#silent = true;
    this.events.stalled(silentMs);
  }
}
