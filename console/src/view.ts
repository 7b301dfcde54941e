// The graph: cytoscape draws nodes and edges and holds their positions; `above` and `particles` are canvases on top.

import cytoscape from 'cytoscape'

import { Above, dots, inks, type Mark } from './above'
import type { Found } from './find'
import { COLORS, health } from './format'
import { label as edgeText, shares } from './labels'
import { arrange, relative, stretched, type Link } from './layout'
import { Particles } from './particles'
import type { Point } from './path'
import { Routes } from './routes'
import type { Badge, Edge, Graph, Node } from './shapes'
import { style } from './style'

const SHAPES: Record<Node['kind'], string> = {
  app: 'round-rectangle',
  service: 'triangle',
  workload: 'ellipse',
  external: 'round-tag',
  unknown: 'diamond',
}
const TCP = '#2a6fdb'
/** How long nodes and edges without traffic keep their places, in milliseconds. */
const KEPT_MS = 900_000
/** The height that the legend takes at the bottom. */
const LEGEND = 24

/** `home`: the namespace that needs no mention. */
function nodeLabel(node: Node, boxed: boolean, home: string): string {
  if (boxed && node.version) return node.version
  const version = node.kind === 'app' ? (node.version ?? '') : ''
  const where = node.namespace && node.namespace !== home ? `(${node.namespace})` : ''
  const short = version && node.name.length + version.length < 14
  const below = short ? where : `${version} ${where}`.trim()
  return [short ? `${node.name} ${version}` : node.name, ...(below ? [below] : [])].join('\n')
}

/** The namespace of most nodes. */
function commonest(nodes: Node[]): string {
  const counts = new Map<string, number>()
  for (const n of nodes) if (n.namespace) counts.set(n.namespace, (counts.get(n.namespace) ?? 0) + 1)
  return [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]))[0]?.[0] ?? ''
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
  private routes: Routes
  private above: Above
  private particles: Particles
  private moved = false
  /** Whether the nodes are arranged from top to bottom. */
  private down = false
  private observer: ResizeObserver
  private byId = new Map<string, Edge>()
  private texts = new Map<string, Mark>()
  /** Elements without traffic, and since when. */
  private idle = new Map<string, number>()
  private graph: Graph | null = null
  private wish: Wish | null = null
  animated = true

  constructor(
    private host: HTMLElement,
    select: (id: string | null) => void,
  ) {
    const place = layer('div')
    const [moving, still] = [layer('canvas'), layer('canvas')]
    place.style.pointerEvents = 'auto'
    host.append(place, moving, still)
    this.cy = cytoscape({ container: place, style: style(inks(host)), minZoom: 0.1, maxZoom: 2.5 })
    this.routes = new Routes(this.cy)
    this.above = new Above(host, still, this.cy, this.routes, () => this.wish && { ...this.wish, texts: this.texts, edges: this.byId })
    this.particles = new Particles(moving, this.cy, this.routes)
    this.particles.colors(dots(this.above.ink))
    this.cy.on('tap', (event) => {
      const id = event.target === this.cy ? null : ((event.target as cytoscape.SingularElementArgument).id() as string)
      select(id && !id.startsWith('box/') ? id : null)
    })
    this.cy.on('mouseover mouseout', 'node, edge', (event) => {
      this.above.over = event.type === 'mouseover' ? ((event.target as cytoscape.SingularElementArgument).id() as string) : ''
      this.above.refresh()
    })
    for (const gesture of ['dragpan', 'scrollzoom', 'pinchzoom', 'drag']) this.cy.on(gesture, () => (this.moved = true))
    this.cy.on('drag', 'node', (event) => this.dragged(event.target as cytoscape.NodeSingular))
    this.cy.on('viewport', () => this.particles.follow())
    this.cy.on('render', this.above.refresh)
    this.observer = new ResizeObserver(() => {
      this.cy.resize()
      this.particles.follow()
      if (this.cy.nodes().empty()) return
      if (this.narrow() !== this.down) this.arrange()
      else if (!this.moved) this.fit()
    })
    this.observer.observe(host)
  }

  destroy() {
    this.above.destroy()
    this.particles.destroy()
    this.observer.disconnect()
    this.cy.destroy()
    this.host.replaceChildren()
  }

  /** After the theme has changed. */
  restyle() {
    this.above.ink = inks(this.host)
    this.particles.colors(dots(this.above.ink))
    this.cy.style(style(this.above.ink))
  }

  fit() {
    this.moved = false
    const { x1, x2, y1, y2, w, h } = this.cy.elements(':visible').boundingBox()
    const [width, height, padding] = [this.cy.width(), this.cy.height(), this.padding()]
    const below = this.narrow() ? 0 : LEGEND
    // Names are drawn above the graph, in the size of the screen: those at its sides need room of their own.
    const side = (near: (x: number) => boolean) => Math.min(width / 4, Math.max(padding, ...this.halves(near)))
    const [left, right] = [side((x) => x < x1 + w / 8), side((x) => x > x2 - w / 8)]
    const best = Math.min((width - left - right) / Math.max(w, 1), (height - 2 * padding - below) / Math.max(h, 1), 1.25)
    const zoom = Math.max(best, this.cy.minZoom())
    this.cy.viewport({ zoom, pan: { x: (width + left - right - zoom * (x1 + x2)) / 2, y: (height - below - zoom * (y1 + y2)) / 2 } })
  }

  /** About half of the widths of the names of some nodes, in pixels of the screen. */
  private halves(near: (x: number) => boolean): number[] {
    const nodes = this.cy.nodes(':childless:visible').toArray().filter((n) => near((n as cytoscape.NodeSingular).position('x')))
    return nodes.map((n) => 8 + 3.5 * Math.max(0, ...(this.texts.get(n.id())?.label ?? '').split('\n').map((l) => l.length)))
  }

  zoom(by: number) {
    this.moved = true
    this.cy.zoom({ level: this.cy.zoom() * by, renderedPosition: { x: this.cy.width() / 2, y: this.cy.height() / 2 } })
  }

  reset() {
    this.moved = false
    this.cy.elements().remove()
    this.routes.forget()
    this.texts.clear()
    this.idle.clear()
    this.particles.clear()
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

  /** The node where the keyboard begins. */
  first(): string {
    return this.nearest(this.shown(), { x: -1e9, y: 0 }, [1, 0])
  }

  /** The node beside another in a direction; the same where there is none, the first one from nowhere. */
  beside(id: string, step: [number, number]): string {
    const from = this.cy.getElementById(id)
    if (from.empty()) return this.first()
    return this.nearest(this.shown(), from.position(), step) || id
  }

  /** Name a node as the pointer does, and bring it into sight; nothing for none. */
  point(id: string) {
    this.cy.elements().removeClass('pointed')
    this.above.over = id
    this.above.refresh()
    const node = this.cy.getElementById(id)
    if (node.empty()) return
    node.addClass('pointed')
    const { x, y } = node.renderedPosition()
    const edge = Math.min(this.padding(), this.cy.width() / 3, this.cy.height() / 3)
    const into = (at: number, most: number) => Math.min(Math.max(at, edge), most - edge) - at
    const by = { x: into(x, this.cy.width()), y: into(y, this.cy.height()) }
    if (!by.x && !by.y) return
    this.moved = true
    this.cy.panBy(by)
  }

  private shown(): { id: string; at: Point }[] {
    return this.cy.nodes(':childless').filter((n) => !n.hasClass('hidden')).map((n) => ({ id: n.id(), at: (n as cytoscape.NodeSingular).position() }))
  }

  /** Of what lies in a direction the nearest; what lies aside counts as twice as far. */
  private nearest(nodes: { id: string; at: Point }[], from: Point, [right, down]: [number, number]): string {
    let [best, least] = ['', Infinity]
    for (const { id, at } of nodes) {
      const [x, y] = [at.x - from.x, at.y - from.y]
      const [ahead, away] = [x * right + y * down, Math.abs(x * down) + Math.abs(y * right)]
      if (ahead < 1 || away > 3 * ahead) continue
      if (ahead + 2 * away < least) [best, least] = [id, ahead + 2 * away]
    }
    return best
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
      const home = commonest(graph.nodes)
      for (const node of graph.nodes) grown = this.node(node, home) || grown
      this.byId = new Map(graph.edges.map((e) => [e.id, e]))
      for (const edge of graph.edges) grown = this.edge(edge, edgeText(edge, wish.labels, parts.get(edge.id) ?? 0)) || grown
      const live = new Set([...graph.nodes.map((n) => n.id), ...this.byId.keys(), ...boxes.keys()])
      this.rest(live)
      this.filter(graph, wish, parts)
    })
    if (grown) this.arrange()
    else this.above.refresh()
    if (fresh && this.animated) this.particles.emit(graph.edges)
  }

  /** Marks what is not live; what was not for long is forgotten, as a page may be open for days. */
  private rest(live: Set<string>) {
    const now = performance.now()
    for (const id of live) this.idle.delete(id)
    this.cy.elements().forEach((e) => {
      toggle(e, 'idle', !live.has(e.id()))
      if (!live.has(e.id()) && !this.idle.has(e.id())) this.idle.set(e.id(), now)
    })
    const gone = [...this.idle].filter(([, since]) => now - since > KEPT_MS).map(([id]) => id)
    for (const id of gone) {
      this.cy.getElementById(id).remove()
      this.texts.delete(id)
      this.idle.delete(id)
    }
    this.routes.forget(gone)
    this.particles.moved(gone)
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
    const still = (id: string) => hidden.has(id) || (found.size > 0 && !found.has(id))
    this.particles.hush(graph.edges.map((e) => e.id).filter(still))
  }

  private node(node: Node, home: string): boolean {
    const box = node.parent && this.cy.getElementById(node.parent).nonempty() ? node.parent : undefined
    const data = {
      id: node.id,
      color: COLORS[health(node.errorRate, node.rateIn || node.rateOut)],
      shape: SHAPES[node.kind],
      wish: node.parent ?? '',
    }
    const known = this.cy.getElementById(node.id)
    this.texts.set(node.id, { label: nodeLabel(node, Boolean(box), home), traffic: node.rateIn + node.rateOut })
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
    const lines = (id: string) => (this.texts.get(id)?.label ?? '').split('\n').length
    const nodes = this.cy.nodes('[!box]').map((n) => ({ id: n.id(), parent: (n.parent().first() as cytoscape.NodeSingular).id(), lines: lines(n.id()) }))
    this.down = this.narrow()
    const made = arrange(this.cy.nodes('[?box]').map((n) => n.id()), nodes, links, this.down)
    const found = stretched(made, this.host.clientWidth - 2 * this.padding(), this.host.clientHeight - 2 * this.padding())
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
    this.routes.forget()
    this.particles.moved()
    if (!this.moved) this.fit()
  }

  /** The edges of a node, or of all in a box, run straight after somebody has moved it. */
  private dragged(node: cytoscape.NodeSingular) {
    const edges = node.union(node.descendants()).connectedEdges()
    edges.addClass('straight')
    const ids = edges.map((e) => e.id())
    this.routes.forget(ids)
    this.particles.moved(ids)
  }

  /** On a phone the graph runs from top to bottom. */
  private narrow(): boolean {
    return this.host.clientWidth < 520
  }

  private padding(): number {
    return this.narrow() ? 34 : 60
  }

}

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
