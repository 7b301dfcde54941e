// Traffic as dots that run along the edges. Pure: what is on its way at a time, and how it is drawn.

import { Path, type Point } from './path.ts'

/** Requests of one edge during the last second. */
export interface Burst {
  edge: string
  count: number
  errors: number
  /** Milliseconds that a dot is on its way. */
  takes: number
}
/** What is seen of the graph, and the size of the canvas in CSS pixels. */
export interface Sight {
  zoom: number
  pan: Point
  width: number
  height: number
  /** Device pixels of a CSS pixel. */
  scale: number
}
export interface Colors {
  rim: string
  ok: string
  failing: string
}
/** What a `Flow` in a worker is told. */
export type Message =
  | { kind: 'canvas'; canvas: OffscreenCanvas }
  | { kind: 'sight'; sight: Sight }
  | { kind: 'colors'; colors: Colors }
  | { kind: 'paths'; paths: [string, Point[]][] }
  | { kind: 'bursts'; bursts: Burst[] }
  | { kind: 'quiet'; edges: string[] }
  | { kind: 'clear' }

interface Dot {
  edge: string
  began: number
  takes: number
  error: boolean
}

const MOST_DOTS = 1500
const MOST_OF_AN_EDGE = 14
const SPREAD_MS = 1000

export class Flow {
  private dots: Dot[] = []
  private paths = new Map<string, Path>()
  private quiet = new Set<string>()

  /** Where an edge runs, in the graph's coordinates; its dots move along. */
  route(edge: string, points: Point[]) {
    this.paths.set(edge, new Path(points))
  }

  clear() {
    this.dots = []
    this.paths.clear()
    this.quiet.clear()
  }

  /** Shows no dots on these edges, nor on their way there; on all others again. */
  hush(edges: string[]) {
    this.quiet = new Set(edges)
    this.dots = this.dots.filter((d) => !this.quiet.has(d.edge))
  }

  /** Dots for the requests of a second, spread over the next one; the newest 1500 of all edges are kept. */
  add(bursts: Burst[], now: number) {
    for (const { edge, count, errors, takes } of bursts) {
      if (this.quiet.has(edge)) continue
      const shown = Math.min(count, MOST_OF_AN_EDGE)
      const failing = Math.ceil((errors / count) * shown)
      for (let i = 0; i < shown; i++) this.dots.push({ edge, began: now + (i / shown) * SPREAD_MS, takes, error: i < failing })
    }
    if (this.dots.length > MOST_DOTS) this.dots = this.dots.slice(-MOST_DOTS)
  }

  /** Dots that are on their way or will be. */
  get size(): number {
    return this.dots.length
  }

  /** Every dot within sight at a time, in CSS pixels; those that have arrived are forgotten. */
  at(now: number, { zoom, pan, width, height }: Sight): { x: number; y: number; error: boolean }[] {
    this.dots = this.dots.filter((d) => now < d.began + d.takes)
    const out = []
    for (const { edge, began, takes, error } of this.dots) {
      const path = now < began ? undefined : this.paths.get(edge)
      if (!path) continue
      const p = path.at((now - began) / takes)
      const [x, y] = [p.x * zoom + pan.x, p.y * zoom + pan.y]
      if (x > -8 && y > -8 && x < width + 8 && y < height + 8) out.push({ x, y, error })
    }
    return out
  }
}

/** Draws all dots of one kind as a single path: much cheaper than one after the other. */
export function draw(pen: OffscreenCanvasRenderingContext2D, flow: Flow, now: number, sight: Sight, colors: Colors) {
  const size = Math.min(1, Math.max(0.35, sight.zoom))
  const dots = flow.at(now, sight)
  pen.setTransform(sight.scale, 0, 0, sight.scale, 0, 0)
  pen.clearRect(0, 0, sight.width, sight.height)
  pen.strokeStyle = colors.rim
  pen.lineWidth = 1
  for (const error of [false, true]) {
    pen.beginPath()
    for (const { x, y } of dots.filter((d) => d.error === error)) (error ? diamond : disc)(pen, x, y, size)
    pen.fillStyle = error ? colors.failing : colors.ok
    pen.fill()
    pen.stroke()
  }
}

function disc(pen: OffscreenCanvasRenderingContext2D, x: number, y: number, size: number) {
  pen.moveTo(x + 4.5 * size, y)
  pen.arc(x, y, 4.5 * size, 0, 2 * Math.PI)
}

function diamond(pen: OffscreenCanvasRenderingContext2D, x: number, y: number, size: number) {
  const r = 6 * size
  pen.moveTo(x, y - r)
  pen.lineTo(x + r, y)
  pen.lineTo(x, y + r)
  pen.lineTo(x - r, y)
  pen.closePath()
}
