// Drawing: cytoscape holds nodes, edges and their positions; labels and moving dots are drawn on canvases above it.

import cytoscape from 'cytoscape'

import type { Found } from './find'
import { COLORS, health } from './format'
import { label as edgeText, shares } from './labels'
import { arrange, HEIGHT, Path, relative, WIDTH, type Link, type Point } from './layout'
import { badges, lock, Room, texts, type Ink, type Text } from './marks'
import type { Badge, Edge, Graph, Node } from './shapes'
import { BORDER, style } from './style'

const SHAPES: Record<Node['kind'], string> = {
  app: 'round-rectangle',
  service: 'triangle',
  workload: 'ellipse',
  external: 'round-tag',
  unknown: 'diamond',
}
const TCP = '#2a6fdb'
const MOST_PARTICLES = 1500
/** Labels are drawn anew after this many times as long as it takes; until then they move with the graph. */
const REST = 3

function nodeLabel(node: Node, boxed: boolean): string {
  if (node.kind === 'app' && node.version) return boxed ? node.version : `${node.name}\n${node.version}`
  return node.name
}

interface Particle {
  edge: string
  began: number
  takes: number
  error: boolean
}

/** What the page wants to see of the graph. */
export interface Wish {
  labels: string
  find: Found
  hide: Found
  badges: Record<string, Badge[]>
  security: boolean
}

export class View {
  private cy: cytoscape.Core
  private still: HTMLCanvasElement
  private moving: HTMLCanvasElement
  private particles: Particle[] = []
  private frame = 0
  private moved = false
  private observer: ResizeObserver
  private byId = new Map<string, Edge>()
  private paths = new Map<string, Path>()
  /** What stands at an element. Not in its data: cytoscape would compute its style anew each time it changes. */
  private texts = new Map<string, { label: string; traffic: number }>()
  private due = false
  private drawn = { at: 0, took: 0, zoom: 1, pan: { x: 0, y: 0 } }
  private graph: Graph | null = null
  private wish: Wish | null = null
  private over = ''
  private ink: Ink
  animated = true

  constructor(
    private host: HTMLElement,
    select: (id: string | null) => void,
  ) {
    const place = layer('div')
    this.moving = layer('canvas')
    this.still = layer('canvas')
    place.style.pointerEvents = 'auto'
    host.append(place, this.moving, this.still)
    this.ink = this.inks()
    this.cy = cytoscape({ container: place, style: style(this.ink), minZoom: 0.1, maxZoom: 2.5 })
    this.cy.on('tap', (event) => {
      const id = event.target === this.cy ? null : ((event.target as cytoscape.SingularElementArgument).id() as string)
      select(id && !id.startsWith('box/') ? id : null)
    })
    this.cy.on('mouseover mouseout', 'node, edge', (event) => {
      this.over = event.type === 'mouseover' ? ((event.target as cytoscape.SingularElementArgument).id() as string) : ''
      this.due = true
    })
    for (const gesture of ['dragpan', 'scrollzoom', 'pinchzoom', 'drag']) this.cy.on(gesture, () => (this.moved = true))
    this.cy.on('drag', 'node', (event) => void (event.target as cytoscape.NodeSingular).connectedEdges().addClass('straight'))
    this.cy.on('position', 'node', () => this.paths.clear())
    this.cy.on('render', () => (this.due = true))
    this.observer = new ResizeObserver(() => {
      this.cy.resize()
      if (!this.moved && this.cy.nodes().nonempty()) this.cy.animate({ fit: { eles: this.cy.elements(':visible'), padding: this.padding() } }, { duration: 250 })
    })
    this.observer.observe(host)
    this.frame = requestAnimationFrame(this.draw)
  }

  destroy() {
    cancelAnimationFrame(this.frame)
    this.observer.disconnect()
    this.cy.destroy()
    this.host.replaceChildren()
  }

  /** After the theme has changed. */
  restyle() {
    this.ink = this.inks()
    this.cy.style(style(this.ink))
  }

  fit() {
    this.moved = false
    this.cy.fit(this.cy.elements(':visible'), this.padding())
    if (this.cy.zoom() > 1.25) {
      this.cy.zoom(1.25)
      this.cy.center(this.cy.elements(':visible'))
    }
  }

  zoom(by: number) {
    this.moved = true
    this.cy.zoom({ level: this.cy.zoom() * by, renderedPosition: { x: this.cy.width() / 2, y: this.cy.height() / 2 } })
  }

  reset() {
    this.moved = false
    this.cy.elements().remove()
    this.paths.clear()
    this.texts.clear()
    this.particles = []
  }

  /** The position of each node as text, by which tests see that nothing moves by itself. */
  places(): string {
    const rounded = this.cy.nodes(':childless').map((n) => `${n.id()} ${Math.round(n.position('x'))} ${Math.round(n.position('y'))}`)
    return rounded.sort().join('; ')
  }

  select(id: string | null) {
    this.cy.elements().removeClass('chosen')
    if (id) this.cy.getElementById(id).addClass('chosen')
  }

  /** Show a graph. Known elements keep their position, even while they are idle, so that nothing jumps. */
  show(graph: Graph, wish: Wish) {
    const fresh = graph !== this.graph
    this.graph = graph
    this.wish = wish
    const boxes = new Map<string, number>()
    for (const node of graph.nodes) if (node.parent) boxes.set(node.parent, (boxes.get(node.parent) ?? 0) + 1)
    let grown = false
    const parts = shares(graph)
    this.cy.batch(() => {
      for (const [box, members] of boxes)
        if (members > 1 && this.cy.getElementById(box).empty()) {
          this.cy.add({ group: 'nodes', data: { id: box, box: true } })
          this.texts.set(box, { label: box.split('/')[2] ?? box, traffic: 0 })
          this.cy.nodes(`[wish = "${box}"]`).forEach((n) => void n.move({ parent: box }))
          grown = true
        }
      for (const node of graph.nodes) grown = this.node(node) || grown
      this.byId = new Map(graph.edges.map((e) => [e.id, e]))
      for (const edge of graph.edges) grown = this.edge(edge, edgeText(edge, wish.labels, parts.get(edge.id) ?? 0)) || grown
      const live = new Set([...graph.nodes.map((n) => n.id), ...this.byId.keys(), ...boxes.keys()])
      this.cy.elements().forEach((e) => toggle(e, 'idle', !live.has(e.id())))
      this.filter(graph, wish, parts)
    })
    if (grown) this.arrange()
    else this.due = true
    if (fresh) for (const edge of graph.edges) this.emit(edge)
  }

  /** Hides and finds by the expressions. */
  private filter(graph: Graph, wish: Wish, parts: Map<string, number>) {
    const unwell = new Set(graph.edges.filter((e) => e.errorRate).flatMap((e) => [e.source, e.target]))
    const facts = (node: Node) => ({ node, badges: wish.badges[node.id] ?? [], healthy: !unwell.has(node.id) })
    const ofEdge = (edge: Edge) => ({ edge, share: parts.get(edge.id) ?? 0 })
    const gone = new Set(graph.nodes.filter((n) => wish.hide.node(facts(n))).map((n) => n.id))
    const hidden = new Set(gone)
    for (const e of graph.edges) if (wish.hide.edge(ofEdge(e)) || gone.has(e.source) || gone.has(e.target)) hidden.add(e.id)
    const found = new Set([...graph.nodes.filter((n) => wish.find.node(facts(n))), ...graph.edges.filter((e) => wish.find.edge(ofEdge(e)))].map((e) => e.id))
    this.cy.elements().forEach((e) => {
      const box = e.isNode() && e.isParent()
      toggle(e, 'hidden', box ? e.children().every((c) => hidden.has((c as cytoscape.NodeSingular).id())) : hidden.has(e.id()))
      toggle(e, 'found', found.has(e.id()))
      toggle(e, 'other', found.size > 0 && !box && !found.has(e.id()))
    })
  }

  private node(node: Node): boolean {
    const box = node.parent && this.cy.getElementById(node.parent).nonempty() ? node.parent : undefined
    const data = {
      id: node.id,
      color: COLORS[health(node.errorRate, node.rateIn || node.rateOut)],
      shape: SHAPES[node.kind],
      wish: node.parent ?? '',
    }
    const known = this.cy.getElementById(node.id)
    this.texts.set(node.id, { label: nodeLabel(node, Boolean(box)), traffic: node.rateIn + node.rateOut })
    if (known.nonempty()) {
      renew(known, data)
      return false
    }
    this.cy.add({ group: 'nodes', data: { ...data, parent: box } })
    return true
  }

  private edge(edge: Edge, label: string): boolean {
    const color = edge.protocol === 'tcp' ? TCP : COLORS[health(edge.errorRate, edge.rate)]
    const width = Math.round(10 * (1.5 + Math.min(4, Math.log10(1 + edge.rate * 4)))) / 10
    const data = { id: edge.id, source: edge.source, target: edge.target, color, width }
    this.texts.set(edge.id, { label, traffic: edge.rate })
    const known = this.cy.getElementById(edge.id)
    if (known.nonempty()) {
      renew(known, data)
      return false
    }
    this.cy.add({ group: 'edges', data: { ...data, weights: [], distances: [] } })
    return true
  }

  private arrange() {
    const links: Link[] = this.cy.edges().map((e) => ({ id: e.id(), source: e.source().id(), target: e.target().id() }))
    const nodes = this.cy.nodes('[!box]').map((n) => ({ id: n.id(), parent: (n.parent().first() as cytoscape.NodeSingular).id() }))
    const found = arrange(this.cy.nodes('[?box]').map((n) => n.id()), nodes, links, this.narrow())
    // At once, without moving there: edges between nodes that overlap on their way cannot be drawn.
    this.cy.batch(() => {
      for (const { id } of nodes) this.cy.getElementById(id).position({ ...found.places.get(id)! })
      for (const { id, source, target } of links) {
        const [from, to] = [found.places.get(source)!, found.places.get(target)!]
        const bends = (found.bends.get(id) ?? []).map((p) => relative(from, to, p))
        const edge = this.cy.getElementById(id)
        edge.data({ weights: bends.map((b) => b.weight), distances: bends.map((b) => b.distance) })
        edge.toggleClass('straight', !bends.length)
      }
    })
    this.paths.clear()
    if (!this.moved) this.fit()
  }

  /** On a phone the graph runs from top to bottom. */
  private narrow(): boolean {
    return this.still.clientWidth < 520
  }

  private padding(): number {
    return this.narrow() ? 26 : 60
  }

  private emit(edge: Edge) {
    if (!this.animated || !edge.now) return
    const now = performance.now()
    const count = Math.min(edge.now, 14)
    const takes = Math.min(2600, 700 + (edge.p50 ?? 100) * 4)
    for (let i = 0; i < count; i++) {
      const error = i < Math.ceil((edge.nowErrors / edge.now) * count)
      this.particles.push({ edge: edge.id, began: now + (i / count) * 1000, takes, error })
    }
    if (this.particles.length > MOST_PARTICLES) this.particles.splice(0, this.particles.length - MOST_PARTICLES)
  }

  // --- the canvases above ----------------------------------------------------------------------------------

  private draw = (now: number) => {
    this.frame = requestAnimationFrame(this.draw)
    if (this.due) this.follow(now)
    if (!this.particles.length && this.moving.dataset.empty === 'yes') return
    const pen = cleared(this.moving)
    if (!pen) return
    const size = Math.min(1, Math.max(0.35, this.cy.zoom()))
    this.particles = this.particles.filter((p) => now < p.began + p.takes)
    this.moving.dataset.empty = this.particles.length ? '' : 'yes'
    pen.strokeStyle = this.ink.back
    pen.lineWidth = 1
    for (const p of this.particles) {
      if (now < p.began) continue
      const at = this.along(p.edge, (now - p.began) / p.takes)
      if (!at) continue
      pen.fillStyle = p.error ? COLORS.failing : COLORS.ok
      pen.beginPath()
      if (p.error) {
        const r = 6 * size
        pen.moveTo(at.x, at.y - r)
        pen.lineTo(at.x + r, at.y)
        pen.lineTo(at.x, at.y + r)
        pen.lineTo(at.x - r, at.y)
        pen.closePath()
      } else pen.arc(at.x, at.y, 4.5 * size, 0, 2 * Math.PI)
      pen.fill()
      pen.stroke()
    }
  }

  /** Labels, badges and locks, after whatever they stand at has moved: drawn anew, or moved along. */
  private follow(now: number) {
    const [zoom, pan] = [this.cy.zoom(), this.cy.pan()]
    if (now < this.drawn.at + this.drawn.took * REST) {
      const by = zoom / this.drawn.zoom
      this.still.style.transform = `translate(${pan.x - this.drawn.pan.x * by}px, ${pan.y - this.drawn.pan.y * by}px) scale(${by})`
      return
    }
    this.due = false
    const began = performance.now()
    this.mark()
    this.still.style.transform = ''
    this.drawn = { at: now, took: performance.now() - began, zoom, pan: { ...pan } }
  }

  private mark() {
    const pen = cleared(this.still)
    if (!pen || !this.wish || !this.graph) return
    const zoom = this.cy.zoom()
    const size = Math.min(1.15, Math.max(0.6, zoom))
    const room = new Room()
    const all: Text[] = []
    const { w, h } = { w: this.still.clientWidth, h: this.still.clientHeight }
    const inside = (p: Point) => p.x > -80 && p.y > -40 && p.x < w + 80 && p.y < h + 40
    this.cy.nodes().forEach((n) => {
      if (n.hasClass('hidden')) return
      const { x, y } = n.renderedPosition()
      const [nw, nh] = this.extent(n)
      if (!n.data('box') && inside({ x, y })) room.take(x - nw / 2, y - nh / 2, nw, nh, true)
      all.push(this.nodeText(n, x, y, nh))
    })
    this.cy.edges().forEach((e) => {
      const text = e.hasClass('hidden') ? '' : this.texts.get(e.id())?.label
      if (!text || !inside(e.renderedMidpoint())) return
      const at = [0.5, 0.4, 0.62, 0.3].map((share) => this.along(e.id(), share)).filter((p) => p !== null)
      all.push({ text, at, bold: false, rank: (this.byId.get(e.id())?.rate ?? 0) / 1e6, must: this.marked(e), faded: faded(e) })
    })
    const drawn = texts(pen, room, all.filter((t) => t.at.some(inside)), Math.round(12 * Math.min(1.2, Math.max(0.92, zoom))), this.ink)
    this.host.dataset.labels = String(drawn)
    this.signs(pen, room, size, inside)
  }

  private nodeText(n: cytoscape.NodeSingular, x: number, y: number, height: number): Text {
    const box = Boolean(n.data('box'))
    const { label, traffic } = this.texts.get(n.id()) ?? { label: '', traffic: 0 }
    const lines = label.split('\n').length
    const at = { x, y: box ? y - height / 2 + 2 : y + height / 2 + 2 + 8 * lines }
    return { text: label, at: [at], bold: box, rank: (box ? 2e9 : 1e9) + traffic, must: this.marked(n), faded: faded(n) }
  }

  /** Width and height on the screen; those of all but boxes are known without a look at the style. */
  private extent(n: cytoscape.NodeSingular): [number, number] {
    if (n.data('box')) return [n.renderedOuterWidth(), n.renderedOuterHeight()]
    return [(WIDTH + BORDER) * this.cy.zoom(), (HEIGHT + BORDER) * this.cy.zoom()]
  }

  private marked(e: cytoscape.SingularElementArgument): boolean {
    return e.id() === this.over || e.hasClass('chosen') || e.hasClass('found')
  }

  private signs(pen: CanvasRenderingContext2D, room: Room, size: number, inside: (p: Point) => boolean) {
    if (!this.wish) return
    for (const [id, signs] of Object.entries(this.wish.badges)) {
      const n = this.cy.getElementById(id)
      if (n.empty() || n.hasClass('hidden') || !signs.length) continue
      const { x, y } = n.renderedPosition()
      const [nw, nh] = this.extent(n)
      const at = { x: x + nw / 2, y: y - nh / 2 }
      if (inside(at)) badges(pen, at, signs, Math.min(1, size), this.ink)
    }
    if (!this.wish.security || this.cy.zoom() < 0.3) return
    for (const edge of this.byId.values()) {
      if (!edge.mtls) continue
      const e = this.cy.getElementById(edge.id)
      if (e.empty() || e.hasClass('hidden')) continue
      const r = 7 * Math.min(1, size)
      const free = [0.22, 0.32, 0.72].map((share) => this.along(edge.id, share)).find((p) => p && inside(p) && room.take(p.x - r, p.y - r, 2 * r, 2 * r))
      if (free) lock(pen, free, Math.min(1, size), this.ink, edge.mtls >= 0.999)
    }
  }

  /** A point of an edge in pixels of the canvas. */
  private along(id: string, share: number): Point | null {
    let path = this.paths.get(id)
    if (!path) {
      const edge = this.cy.getElementById(id)
      if (edge.empty() || edge.hasClass('hidden')) return null
      const [a, b] = [edge.sourceEndpoint(), edge.targetEndpoint()]
      if (!a || !b) return null
      path = new Path([a, ...(edge.hasClass('straight') ? [] : (edge.segmentPoints() ?? [])), b])
      this.paths.set(id, path)
    }
    const p = path.at(share)
    const [zoom, pan] = [this.cy.zoom(), this.cy.pan()]
    return { x: p.x * zoom + pan.x, y: p.y * zoom + pan.y }
  }

  private inks(): Ink {
    const style = getComputedStyle(this.host)
    const ink = (name: string) => style.getPropertyValue(`--${name}`).trim()
    return { back: ink('bg'), panel: ink('panel'), text: ink('text'), soft: ink('soft'), accent: ink('accent') }
  }
}

const faded = (e: cytoscape.SingularElementArgument) => e.hasClass('idle') || e.hasClass('other')

function toggle(e: cytoscape.SingularElementArgument, name: string, on: boolean) {
  if (e.hasClass(name) !== on) e.toggleClass(name, on)
}

/** Sets data only where it differs. */
function renew(e: cytoscape.CollectionReturnValue, data: Record<string, unknown>) {
  for (const [key, value] of Object.entries(data)) if (e.data(key) !== value) e.data(key, value)
}

function layer<K extends 'div' | 'canvas'>(tag: K): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag)
  made.style.cssText = 'position:absolute;inset:0;width:100%;height:100%;pointer-events:none'
  return made
}

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
