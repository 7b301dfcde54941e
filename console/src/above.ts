// What is drawn above the graph and stands still: labels, badges, locks.

import type cytoscape from 'cytoscape'

import { COLORS } from './format'
import { HEIGHT, WIDTH } from './layout'
import { badges, FADED, lock, Room, texts, type Ink, type Text } from './marks'
import type { Point } from './path'
import type { Routes } from './routes'
import type { Badge, Edge } from './shapes'
import { BORDER } from './style'

/** Marks are drawn anew after this many times as long as it takes; until then they move with the graph. */
const REST = 12
const LOCKS_FROM_ZOOM = 0.3

/** What stands at an element. Not in its data: cytoscape would compute its style anew each time it changes. */
export interface Mark {
  label: string
  traffic: number
}
export interface Marks {
  texts: Map<string, Mark>
  edges: Map<string, Edge>
  badges: Record<string, Badge[]>
  /** Whether edges with mutual TLS have a lock. */
  security: boolean
}

export class Above {
  ink: Ink
  /** The element under the pointer, whose label is drawn in any case. */
  over = ''
  private frame = 0
  private drawn = { at: 0, took: 0, zoom: 1, pan: { x: 0, y: 0 } }

  constructor(
    private host: HTMLElement,
    private canvas: HTMLCanvasElement,
    private cy: cytoscape.Core,
    private routes: Routes,
    private marks: () => Marks | null,
  ) {
    this.ink = inks(host)
    canvas.style.transformOrigin = '0 0' // as the graph's, whose zoom and pan the picture follows
  }

  destroy() {
    cancelAnimationFrame(this.frame)
  }

  /** After something has moved or changed. */
  refresh = () => {
    this.frame ||= requestAnimationFrame(this.draw)
  }

  /** All marks anew; or, where the last drawing is too recent, the picture of them moved along. */
  private draw = (now: number) => {
    this.frame = 0
    const [zoom, pan] = [this.cy.zoom(), this.cy.pan()]
    if (now < this.drawn.at + this.drawn.took * REST) {
      const by = zoom / this.drawn.zoom
      this.canvas.style.transform = `translate(${pan.x - this.drawn.pan.x * by}px, ${pan.y - this.drawn.pan.y * by}px) scale(${by})`
      this.refresh()
      return
    }
    const began = performance.now()
    this.all()
    this.canvas.style.transform = ''
    this.drawn = { at: now, took: performance.now() - began, zoom, pan: { ...pan } }
  }

  private all() {
    const marks = this.marks()
    const pen = cleared(this.canvas)
    if (!pen || !marks) return
    const zoom = this.cy.zoom()
    const room = new Room()
    const all: Text[] = []
    const { clientWidth: w, clientHeight: h } = this.canvas
    const inside = (p: Point) => p.x > -80 && p.y > -40 && p.x < w + 80 && p.y < h + 40
    this.cy.nodes().forEach((n) => {
      if (n.hasClass('hidden')) return
      const { x, y } = n.renderedPosition()
      const box = Boolean(n.data('box'))
      if (!box && !inside({ x, y })) return
      const [nw, nh] = this.extent(n)
      if (!box) room.take(x - nw / 2, y - nh / 2, nw, nh, true)
      all.push(this.nodeText(n, x, y, nh, marks))
    })
    this.cy.edges().forEach((e) => {
      const mark = e.hasClass('hidden') ? undefined : marks.texts.get(e.id())
      if (!mark?.label || !inside(e.renderedMidpoint())) return
      const at = [0.5, 0.4, 0.62, 0.3].map((share) => this.routes.along(e.id(), share)).filter((p) => p !== null)
      all.push({ text: mark.label, at, bold: false, rank: mark.traffic / 1e6, must: this.marked(e), faded: faded(e) })
    })
    const size = Math.round(12 * Math.min(1.2, Math.max(0.92, zoom)))
    this.host.dataset.labels = String(texts(pen, room, all.filter((t) => t.at.some(inside)), size, this.ink, w))
    this.signs(pen, room, Math.min(1, Math.max(0.6, zoom)), inside, marks)
  }

  private nodeText(n: cytoscape.NodeSingular, x: number, y: number, height: number, { texts }: Marks): Text {
    const box = Boolean(n.data('box'))
    const { label, traffic } = texts.get(n.id()) ?? { label: '', traffic: 0 }
    const lines = label.split('\n').length
    const away = height / 2 + 2 + 8 * lines
    const at = box ? [{ x, y: y - height / 2 + 2 }] : [{ x, y: y + away }, { x, y: y - away }]
    return { text: label, at, bold: box, rank: (box ? 2e9 : 1e9) + traffic, must: this.marked(n), faded: faded(n) }
  }

  /** Width and height on the screen; those of all but boxes are known without a look at the style. */
  private extent(n: cytoscape.NodeSingular): [number, number] {
    if (n.data('box')) return [n.renderedOuterWidth(), n.renderedOuterHeight()]
    return [(WIDTH + BORDER) * this.cy.zoom(), (HEIGHT + BORDER) * this.cy.zoom()]
  }

  private marked(e: cytoscape.SingularElementArgument): boolean {
    return e.id() === this.over || e.hasClass('chosen') || e.hasClass('found')
  }

  private signs(pen: CanvasRenderingContext2D, room: Room, size: number, inside: (p: Point) => boolean, marks: Marks) {
    for (const [id, signs] of Object.entries(marks.badges)) {
      const n = this.cy.getElementById(id)
      if (n.empty() || n.hasClass('hidden') || !signs.length) continue
      const { x, y } = n.renderedPosition()
      const [nw, nh] = this.extent(n)
      const at = { x: x + nw / 2, y: y - nh / 2 }
      pen.globalAlpha = faded(n) ? FADED : 1
      if (inside(at)) badges(pen, at, signs, size, this.ink)
    }
    pen.globalAlpha = 1
    if (!marks.security || this.cy.zoom() < LOCKS_FROM_ZOOM) return
    for (const edge of marks.edges.values()) {
      if (!edge.mtls) continue
      const r = 7 * size
      const places = [0.22, 0.32, 0.72].map((share) => this.routes.along(edge.id, share))
      const free = places.find((p) => p && inside(p) && room.take(p.x - r, p.y - r, 2 * r, 2 * r))
      pen.globalAlpha = faded(this.cy.getElementById(edge.id)) ? FADED : 1
      if (free) lock(pen, free, size, this.ink, edge.mtls >= 0.999)
    }
    pen.globalAlpha = 1
  }
}

/** The theme's colors, which a canvas cannot read from the style sheet itself. */
export function inks(host: HTMLElement): Ink {
  const style = getComputedStyle(host)
  const ink = (name: string) => style.getPropertyValue(`--${name}`).trim()
  return { back: ink('bg'), panel: ink('panel'), text: ink('text'), soft: ink('soft'), accent: ink('accent') }
}

export const dots = (ink: Ink) => ({ rim: ink.back, ok: COLORS.ok, failing: COLORS.failing })

const faded = (e: cytoscape.SingularElementArgument) => e.hasClass('idle') || e.hasClass('other')

/** The canvas' pen, in CSS pixels, with nothing drawn. */
function cleared(canvas: HTMLCanvasElement): CanvasRenderingContext2D | null {
  const scale = devicePixelRatio || 1
  const { clientWidth: w, clientHeight: h } = canvas
  if (canvas.width !== Math.round(w * scale) || canvas.height !== Math.round(h * scale)) {
    canvas.width = Math.round(w * scale)
    canvas.height = Math.round(h * scale)
  }
  const pen = canvas.getContext('2d')
  pen?.setTransform(scale, 0, 0, scale, 0, 0)
  pen?.clearRect(0, 0, w, h)
  return pen
}
