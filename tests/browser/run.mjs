/**
 * The real programs that the browser tests need: demo, agent, brokers, a TURN server, a plain file server. Each gets ports and a folder of
 * its own, on loopback; each is ended by its own process id.
 */

import { spawn } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { chmod, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const BIN = process.env.PEERCAM_BIN_DIR ?? join(process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target'), 'debug');
/** Servers start in well under a second; this leaves room for a machine that does ten other things. */
const START_MS = 20_000;

/** What a test has opened, closed in reverse order, also when the test fails. */
export class Cleanup {
  #steps = [];

  /** @param {() => unknown} step */
  add(step) {
    this.#steps.push(step);
  }

  async run() {
    for (const step of this.#steps.splice(0).reverse()) await step();
  }

  /** A folder that is gone afterwards. */
  async folder() {
    const folder = await mkdtemp(join(tmpdir(), 'peercam-browser-'));
    this.add(() => rm(folder, { recursive: true, force: true }));
    return folder;
  }
}

/** Tests run in several processes, each of which looks from a place of its own on. */
let portsTried = process.pid * 61;

/** A port that was free a moment ago, below those that the system gives to outgoing connections: one of these would take it before we do. */
export async function freePort() {
  for (;;) {
    portsTried += 1;
    const port = 12_000 + (portsTried % 20_000);
    const server = createTcpServer();
    const isFree = await new Promise((resolve) => {
      server.once('error', () => resolve(false));
      server.listen(port, '0.0.0.0', () => resolve(true));
    });
    await new Promise((resolve) => server.close(resolve));
    if (isFree) return port;
  }
}

/**
 * Waits until `look` gives something, or fails with what was expected.
 * @template T
 * @param {string} expected a sentence: "the page shows a picture"
 * @param {number} withinMs
 * @param {() => Promise<T> | T} look a fault counts as "not yet"
 */
export async function eventually(expected, withinMs, look) {
  const deadline = performance.now() + withinMs;
  let fault;
  for (;;) {
    try {
      const found = await look();
      if (found) return found;
    } catch (error) {
      fault = error;
    }
    if (performance.now() > deadline) throw new Error(`${expected}: not within ${withinMs / 1000} s`, { cause: fault });
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A running program, what it has printed, and its end. */
export class Program {
  output = '';
  stdout = '';

  /**
   * @param {Cleanup} cleanup
   * @param {string} command
   * @param {string[]} args
   * @param {NodeJS.ProcessEnv} [env]
   */
  constructor(cleanup, command, args, env = {}) {
    this.name = command.split('/').at(-1);
    this.child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    this.child.stdout.on('data', (data) => {
      this.stdout += data;
      this.output += data;
    });
    this.child.stderr.on('data', (data) => (this.output += data));
    this.ended = new Promise((resolve) => {
      this.child.on('error', (error) => {
        this.output += `${error}\n`;
        resolve(undefined);
      });
      this.child.on('exit', resolve);
    });
    this.running = true;
    this.ended.then(() => (this.running = false));
    cleanup.add(() => this.stop());
  }

  /**
   * Ends it, by force if it does not want to, and waits for that.
   * @param {NodeJS.Signals} [signal]
   */
  async stop(signal = 'SIGTERM') {
    if (!this.running) return;
    this.child.kill(signal);
    const force = setTimeout(() => this.child.kill('SIGKILL'), 5000);
    await this.ended;
    clearTimeout(force);
  }

  /**
   * Waits until it is ready.
   * @param {() => Promise<unknown> | unknown} look
   */
  async ready(look) {
    await eventually(`${this.name} is ready`, START_MS, async () => {
      if (!this.running) throw new Error(`${this.name} ended`);
      return look();
    }).catch((error) => {
      throw new Error(`${error.message}; it printed:\n${this.output}`, { cause: error });
    });
  }
}

/**
 * `peercam-demo` on free ports.
 * @param {Cleanup} cleanup
 * @param {string[]} [args]
 * @returns {Promise<string>} the viewer's URL
 */
export async function startDemo(cleanup, args = []) {
  const state = await cleanup.folder();
  const any = ['--http', '127.0.0.1:0', '--ws', '127.0.0.1:0', '--mqtt', '127.0.0.1:0', '--state', state];
  const demo = new Program(cleanup, join(BIN, 'peercam-demo'), [...any, ...args]);
  await demo.ready(() => /^viewer: \S+$/m.test(demo.stdout));
  return /^viewer: (\S+)$/m.exec(demo.stdout)[1];
}

/**
 * mosquitto with a plain and a WebSocket listener.
 * @param {Cleanup} cleanup
 * @param {{ mqtt: number, ws: number }} [ports] those of an instance that is to come back
 */
export async function startMosquitto(cleanup, ports) {
  const { mqtt, ws } = ports ?? { mqtt: await freePort(), ws: await freePort() };
  const folder = await cleanup.folder();
  const config = join(folder, 'mosquitto.conf');
  await writeFile(config, `allow_anonymous true\nlistener ${mqtt} 127.0.0.1\nlistener ${ws} 127.0.0.1\nprotocol websockets\n`);
  const program = new Program(cleanup, 'mosquitto', ['-c', config], { PATH: `${process.env.PATH}:/usr/sbin` });
  await program.ready(() => /running/.test(program.output));
  return { program, mqtt, ws, pageUrl: `ws://127.0.0.1:${ws}` };
}

/**
 * A configuration file for `peercam run`, with the test card as its camera.
 * @param {Cleanup} cleanup
 * @param {{ mqtt: number, pageUrl: string } | undefined} broker nothing: signaling by HTTP only
 * @param {string} [network] more keys for `[network]`
 * @param {string} [more] more keys for `[http]`
 */
export async function writeConfig(cleanup, broker, network = '', more = '') {
  const folder = await cleanup.folder();
  const http = await freePort();
  const credential = join(folder, 'credential');
  await writeFile(credential, TURN.password);
  await chmod(credential, 0o600);
  const path = join(folder, 'peercam.toml');
  await writeFile(
    path,
    `[device]
name = "Test bench"
state_dir = ${JSON.stringify(join(folder, 'state'))}
[[camera]]
name = "main"
source = "pattern"
[broker]
${broker ? `url = "tcp://127.0.0.1:${broker.mqtt}"\npage_url = "${broker.pageUrl}"` : 'url = "off"'}
[http]
listen = "127.0.0.1:${http}"
${more}
[network]
udp_port = 0
${network.replaceAll('CREDENTIAL', JSON.stringify(credential))}
`,
  );
  return { path, page: `http://127.0.0.1:${http}/` };
}

/**
 * `peercam run`.
 * @param {Cleanup} cleanup
 * @param {{ path: string, page: string }} config
 */
export async function startAgent(cleanup, config) {
  const program = new Program(cleanup, join(BIN, 'peercam'), ['run', '--config', config.path]);
  await program.ready(async () => (await fetch(`${config.page}peercam.json`)).ok);
  return program;
}

/** Who may use the test's TURN server. */
export const TURN = { user: 'page', password: 'only-for-this-test' };

/**
 * Keys for `[network]` by which nothing but the TURN server at `port` is used.
 * @param {number} port
 * @param {string} transport
 * @param {string} [user]
 */
export function relayOnly(port, transport, user = TURN.user) {
  return `transport_policy = "relay"
[[network.ice_server]]
urls = ["turn:127.0.0.1:${port}?transport=${transport}"]
username = "${user}"
credential_file = CREDENTIAL`;
}

/**
 * coturn, which may relay to loopback.
 * @param {Cleanup} cleanup
 */
export async function startCoturn(cleanup) {
  const port = await freePort();
  const folder = await cleanup.folder();
  const program = new Program(cleanup, 'turnserver', [
    ...['-n', '--listening-ip', '127.0.0.1', '--relay-ip', '127.0.0.1', '--listening-port', String(port), '--allow-loopback-peers'],
    ...['--lt-cred-mech', '--user', `${TURN.user}:${TURN.password}`, '--realm', 'test', '--no-tls', '--no-dtls', '--no-cli'],
    ...['--userdb', join(folder, 'turndb'), '--pidfile', join(folder, 'pid'), '--log-file', 'stdout', '--verbose'],
  ]);
  await program.ready(() => /listener opened/i.test(program.output));
  return { program, port };
}

/**
 * Makes an H.264 file with ffmpeg: 30 frames a second, no B frames.
 * @param {Cleanup} cleanup
 */
export async function makeFile(cleanup) {
  const path = join(await cleanup.folder(), 'clip.h264');
  const ffmpeg = new Program(cleanup, 'ffmpeg', [
    ...['-v', 'error', '-f', 'lavfi', '-i', 'testsrc2=size=1280x720:rate=30', '-t', '6', '-pix_fmt', 'yuv420p'],
    ...['-c:v', 'libx264', '-profile:v', 'baseline', '-preset', 'ultrafast', '-b:v', '2000k', '-g', '60', '-f', 'h264', path],
  ]);
  if ((await ffmpeg.ended) !== 0) throw new Error(`ffmpeg failed:\n${ffmpeg.output}`);
  return path;
}

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };

/**
 * A plain file server for `web/`: no peercam.json, as anybody's web space.
 * @param {Cleanup} cleanup
 * @param {string} [folder] another one to serve
 * @returns {Promise<string>} its address
 */
export async function servePage(cleanup, folder = join(ROOT, 'web')) {
  const server = createServer(async (request, response) => {
    const path = normalize(new URL(request.url, 'http://x').pathname);
    const file = join(folder, path.endsWith('/') ? `${path}index.html` : path);
    if (!(await stat(file).catch(() => undefined))?.isFile()) return response.writeHead(404).end();
    response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream' });
    return createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanup.add(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  return `http://127.0.0.1:${server.address().port}/`;
}
