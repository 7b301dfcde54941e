// Labels, badges and locks, drawn above the graph in the size of the screen: they can be read at every zoom.

import { into } from './into'
import { BADGES } from './labels'
import type { Point } from './path'
import type { Badge } from './shapes'

export interface Ink {
  back: string
  panel: string
  text: string
  soft: string
  accent: string
}
/** Places are in pixels of the canvas. The higher the rank, the sooner it gets its room. */
export interface Text {
  text: string
  /** Where it may stand, the best first. */
  at: Point[]
  bold: boolean
  rank: number
  /** Drawn in any case. */
  must: boolean
  faded: boolean
}

/** What room on the canvas is taken, in cells, so that asking costs the same however much is drawn. */
export class Room {
  private static readonly CELL = 64
  private cells = new Map<number, [number, number, number, number][]>()

  /** Takes a rectangle if it is free, or in any case where `must`. */
  take(x: number, y: number, w: number, h: number, must = false): boolean {
    const keys = this.keys(x, y, w, h)
    const free = keys.every((k) => (this.cells.get(k) ?? []).every(([a, b, c, d]) => x >= a + c || a >= x + w || y >= b + d || b >= y + h))
    if (!free && !must) return false
    for (const k of keys) {
      const cell = this.cells.get(k)
      if (cell) cell.push([x, y, w, h])
      else this.cells.set(k, [[x, y, w, h]])
    }
    return true
  }

  private keys(x: number, y: number, w: number, h: number): number[] {
    const out: number[] = []
    const c = Room.CELL
    for (let i = Math.floor(x / c); i <= Math.floor((x + w) / c); i++)
      for (let j = Math.floor(y / c); j <= Math.floor((y + h) / c); j++) out.push(i * 10_007 + j)
    return out
  }
}

/** How much is seen of marks at what is dimmed. */
export const FADED = 0.25
const FONT = "px system-ui, 'DejaVu Sans', sans-serif"

export function texts(pen: CanvasRenderingContext2D, room: Room, all: Text[], size: number, ink: Ink, width: number): number {
  let drawn = 0
  const line = Math.round(size * 1.25)
  pen.textAlign = 'center'
  pen.textBaseline = 'middle'
  for (const t of [...all].sort((a, b) => Number(b.must) - Number(a.must) || b.rank - a.rank)) {
    pen.font = `${t.bold ? '600 ' : ''}${size}${FONT}`
    const lines = t.text.split('\n')
    const w = Math.max(...lines.map((l) => pen.measureText(l).width)) + 6
    const h = line * lines.length
    const places = t.at.map(({ x, y }) => ({ x: into(x, w, width), y }))
    const at = places.find((p, i) => room.take(p.x - w / 2, p.y - h / 2, w, h, t.must && i === t.at.length - 1))
    if (!at) continue
    pen.globalAlpha = t.faded ? FADED : 1
    pen.fillStyle = ink.back
    pen.globalAlpha *= 0.88
    pen.beginPath()
    pen.roundRect(at.x - w / 2, at.y - h / 2, w, h, 3)
    pen.fill()
    pen.globalAlpha = t.faded ? FADED : 1
    pen.fillStyle = ink.text
    lines.forEach((l, i) => pen.fillText(l, at.x, at.y - h / 2 + line * (i + 0.5)))
    drawn++
  }
  pen.globalAlpha = 1
  return drawn
}

/** A row of badges that ends at a point, the most important one last. */
export function badges(pen: CanvasRenderingContext2D, at: Point, all: Badge[], size: number, ink: Ink) {
  all.slice(0, 4).forEach((badge, i) => {
    const r = 8.5 * size
    const x = at.x - i * 2 * r
    pen.fillStyle = ink.panel
    pen.strokeStyle = badge === 'no-sidecar' || badge === 'fault' ? '#d3322f' : ink.accent
    pen.lineWidth = 1
    pen.beginPath()
    pen.arc(x, at.y, r, 0, 2 * Math.PI)
    pen.fill()
    pen.stroke()
    pen.save()
    pen.translate(x - 6 * size, at.y - 6 * size)
    pen.scale(0.75 * size, 0.75 * size)
    pen.lineWidth = 1.8
    pen.lineJoin = pen.lineCap = 'round'
    pen.stroke(new Path2D(BADGES[badge].path))
    pen.restore()
  })
}

export function lock(pen: CanvasRenderingContext2D, at: Point, size: number, ink: Ink, whole: boolean) {
  pen.save()
  pen.translate(at.x, at.y)
  pen.scale(size, size)
  pen.fillStyle = ink.back
  pen.beginPath()
  pen.arc(0, -1, 9, 0, 2 * Math.PI)
  pen.fill()
  pen.strokeStyle = pen.fillStyle = ink.soft
  pen.lineWidth = 1.4
  pen.beginPath()
  pen.arc(0, -3, 3, Math.PI, 0)
  pen.stroke()
  if (whole) pen.fillRect(-4.5, -3, 9, 7)
  else pen.strokeRect(-4, -3, 8, 6.5)
  pen.restore()
}
