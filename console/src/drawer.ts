// The worker that draws the moving dots of the graph, where the browser can have one.

import type { Message } from './flow'

/** A worker that has the canvas; null where there are no workers (a policy may forbid them), or where no canvas can be
 * given to one. */
export function drawer(canvas: HTMLCanvasElement, make: () => Worker): Worker | null {
  let worker: Worker | null = null
  try {
    worker = make()
    const offscreen = canvas.transferControlToOffscreen()
    worker.postMessage({ kind: 'canvas', canvas: offscreen } satisfies Message, [offscreen])
    return worker
  } catch (e) {
    console.warn('The graph has no moving dots, because this browser cannot draw them in a worker:', e)
    worker?.terminate()
    return null
  }
}
