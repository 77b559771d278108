// @ts-check
/**
 * Starts the page, and loads it again where a part of it did not come: what a phone is loading while it changes networks is lost, and no
 * browser fetches a module twice. A classic script of its own, as it has to run where modules fail.
 */

/** Between two attempts. */
const AGAIN_MS = 1000;

const modules = document.createElement('script');
modules.type = 'module';
modules.src = 'main.js';
modules.addEventListener('error', () => setTimeout(again, AGAIN_MS));
document.head.append(modules);

/** Not before the server answers: the browser's own error page would not come back. */
async function again() {
  const answer = await fetch(location.href, { cache: 'no-store' }).catch(() => undefined);
  if (answer?.ok) location.reload();
  else setTimeout(again, AGAIN_MS);
}
