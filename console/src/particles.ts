// The moving traffic of the graph: a canvas that a worker draws. Here is what it is told.

import type cytoscape from 'cytoscape'

import { drawer } from './drawer'
import type { Burst, Colors, Message, Sight } from './flow'
import Drawer from './flow.worker?worker'
import type { Point } from './path'
import type { Routes } from './routes'
import type { Edge } from './shapes'

/** How long a dot is on its way: longer where answers take longer, within bounds. */
const travel = (edge: Edge) => Math.min(2600, 700 + (edge.p50 ?? 100) * 4)

export class Particles {
  /** Null where the browser cannot draw in a worker: the graph goes without dots. */
  private worker: Worker | null
  /** The edges whose paths the worker knows. */
  private told = new Set<string>()
  private seen = ''
  private quiet = ''

  constructor(
    private canvas: HTMLCanvasElement,
    private cy: cytoscape.Core,
    private routes: Routes,
  ) {
    this.worker = drawer(canvas, () => new Drawer())
  }

  destroy() {
    this.worker?.terminate()
  }

  colors(colors: Colors) {
    this.tell({ kind: 'colors', colors })
  }

  clear() {
    this.told.clear()
    this.quiet = ''
    this.tell({ kind: 'clear' })
  }

  /** Dots for the requests that the last second has added. */
  emit(edges: Edge[]) {
    const busy = edges.filter((e) => e.now && this.routes.of(e.id))
    const bursts: Burst[] = busy.map((e) => ({ edge: e.id, count: e.now, errors: e.nowErrors, takes: travel(e) }))
    this.follow()
    this.route(busy.map((e) => e.id).filter((id) => !this.told.has(id)))
    if (bursts.length) this.tell({ kind: 'bursts', bursts })
  }

  /** Nothing moves on these edges, and on all others it does. */
  hush(edges: string[]) {
    const text = edges.sort().join('\n')
    if (text !== this.quiet) this.tell({ kind: 'quiet', edges })
    this.quiet = text
  }

  /** After edges have moved, all where none are given. */
  moved(edges?: string[]) {
    if (edges) this.route(edges.filter((id) => this.told.has(id)))
    else this.route([...this.told])
  }

  /** After the graph or its canvas has moved or changed its size. */
  follow() {
    const { clientWidth: width, clientHeight: height } = this.canvas
    const sight: Sight = { zoom: this.cy.zoom(), pan: { ...this.cy.pan() }, width, height, scale: devicePixelRatio || 1 }
    const text = JSON.stringify(sight)
    if (text !== this.seen) this.tell({ kind: 'sight', sight })
    this.seen = text
  }

  private route(edges: string[]) {
    const paths: [string, Point[]][] = []
    for (const id of edges) {
      const path = this.routes.of(id)
      if (path) {
        paths.push([id, path.points.map(({ x, y }) => ({ x, y }))])
        this.told.add(id)
      } else this.told.delete(id)
    }
    if (paths.length) this.tell({ kind: 'paths', paths })
  }

  private tell(message: Message) {
    this.worker?.postMessage(message)
  }
}
