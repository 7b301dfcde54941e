// Drawing: cytoscape holds nodes, edges and their positions; moving dots are drawn on a second canvas above it.

import cytoscape from 'cytoscape'
import dagre from 'cytoscape-dagre'

import type { Edge, Graph, Node } from './shapes'
import { bytes, COLORS, health, rate } from './format'

cytoscape.use(dagre)

const SHAPES: Record<Node['kind'], string> = {
  app: 'round-rectangle',
  service: 'triangle',
  workload: 'ellipse',
  external: 'round-tag',
  unknown: 'diamond',
}

function label(node: Node, boxed: boolean): string {
  if (node.kind === 'app' && node.version) return boxed ? node.version : `${node.name}\n${node.version}`
  return node.name
}

function edgeLabel(edge: Edge): string {
  return edge.protocol === 'tcp' ? bytes(edge.bytesRate) : rate(edge.rate)
}

function edgeColor(edge: Edge): string {
  return edge.protocol === 'tcp' ? '#2a6fdb' : COLORS[health(edge.errorRate, edge.rate)]
}

interface Particle {
  edge: string
  began: number
  takes: number
  error: boolean
}

export class View {
  private cy: cytoscape.Core
  private canvas: HTMLCanvasElement
  private particles: Particle[] = []
  private frame = 0
  private moved = false
  private observer: ResizeObserver
  private dark = matchMedia('(prefers-color-scheme: dark)')
  private byId = new Map<string, Edge>()
  animated = true

  constructor(host: HTMLElement, select: (id: string | null) => void) {
    const place = document.createElement('div')
    place.style.cssText = 'position:absolute;inset:0'
    this.canvas = document.createElement('canvas')
    this.canvas.style.cssText = 'position:absolute;inset:0;pointer-events:none;width:100%;height:100%'
    host.append(place, this.canvas)
    this.cy = cytoscape({ container: place, style: this.style(), minZoom: 0.2, maxZoom: 2.5 })
    this.cy.on('tap', (event) => {
      const id = event.target === this.cy ? null : ((event.target as cytoscape.SingularElementArgument).id() as string)
      select(id && !id.startsWith('box/') ? id : null)
    })
    for (const gesture of ['dragpan', 'scrollzoom', 'pinchzoom', 'drag']) this.cy.on(gesture, () => (this.moved = true))
    this.dark.addEventListener('change', this.restyle)
    this.observer = new ResizeObserver(() => {
      this.cy.resize()
      if (!this.moved && this.cy.nodes().nonempty()) this.cy.animate({ fit: { eles: this.cy.elements(), padding: 60 } }, { duration: 250 })
    })
    this.observer.observe(host)
    this.frame = requestAnimationFrame(this.draw)
  }

  destroy() {
    cancelAnimationFrame(this.frame)
    this.observer.disconnect()
    this.dark.removeEventListener('change', this.restyle)
    this.cy.destroy()
  }

  private restyle = () => this.cy.style(this.style())

  fit() {
    this.cy.fit(undefined, 60)
    if (this.cy.zoom() > 1.25) {
      this.cy.zoom(1.25)
      this.cy.center()
    }
  }

  reset() {
    this.moved = false
    this.cy.elements().remove()
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
  show(graph: Graph) {
    const boxes = new Map<string, number>()
    for (const node of graph.nodes) if (node.parent) boxes.set(node.parent, (boxes.get(node.parent) ?? 0) + 1)
    let grown = false
    this.cy.batch(() => {
      for (const [box, members] of boxes)
        if (members > 1 && this.cy.getElementById(box).empty()) {
          this.cy.add({ group: 'nodes', data: { id: box, label: box.split('/')[2], box: true } })
          this.cy.nodes(`[wish = "${box}"]`).forEach((n) => void n.move({ parent: box }))
          grown = true
        }
      for (const node of graph.nodes) grown = this.node(node) || grown
      this.byId = new Map(graph.edges.map((e) => [e.id, e]))
      for (const edge of graph.edges) grown = this.edge(edge) || grown
      const live = new Set([...graph.nodes.map((n) => n.id), ...this.byId.keys(), ...boxes.keys()])
      this.cy.elements().forEach((e) => void e.toggleClass('idle', !live.has(e.id())))
    })
    if (grown) this.arrange()
    for (const edge of graph.edges) this.emit(edge)
  }

  private node(node: Node): boolean {
    const box = node.parent && this.cy.getElementById(node.parent).nonempty() ? node.parent : undefined
    const data = {
      id: node.id,
      label: label(node, Boolean(box)),
      color: COLORS[health(node.errorRate, node.rateIn || node.rateOut)],
      shape: SHAPES[node.kind],
      wish: node.parent ?? '',
    }
    const known = this.cy.getElementById(node.id)
    if (known.nonempty()) {
      known.data(data)
      return false
    }
    this.cy.add({ group: 'nodes', data: { ...data, parent: box } })
    return true
  }

  private edge(edge: Edge): boolean {
    const data = { ...edge, label: edgeLabel(edge), color: edgeColor(edge), width: 1.5 + Math.min(4, Math.log10(1 + edge.rate * 4)) }
    const known = this.cy.getElementById(edge.id)
    if (known.nonempty()) {
      known.data(data)
      return false
    }
    this.cy.add({ group: 'edges', data })
    return true
  }

  private arrange() {
    const first = this.cy.nodes('.placed').empty()
    const layout = this.cy.layout({
      name: 'dagre',
      rankDir: this.narrow() ? 'TB' : 'LR',
      nodeSep: 54,
      rankSep: 96,
      edgeSep: 18,
      fit: false,
      animate: !first,
      animationDuration: 350,
      sort: (a: cytoscape.SingularElementArgument, b: cytoscape.SingularElementArgument) =>
        a.id() < b.id() ? 1 : -1,
    } as unknown as cytoscape.LayoutOptions)
    layout.one('layoutstop', () => {
      this.cy.nodes().addClass('placed')
      if (!this.moved) this.fit()
    })
    layout.run()
  }

  /** On a phone the graph runs from top to bottom. */
  private narrow(): boolean {
    return this.canvas.clientWidth < 520
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
    if (this.particles.length > 1500) this.particles.splice(0, this.particles.length - 1500)
  }

  private draw = (now: number) => {
    this.frame = requestAnimationFrame(this.draw)
    const scale = devicePixelRatio || 1
    const { clientWidth: w, clientHeight: h } = this.canvas
    if (this.canvas.width !== w * scale || this.canvas.height !== h * scale) {
      this.canvas.width = w * scale
      this.canvas.height = h * scale
    }
    const pen = this.canvas.getContext('2d')
    if (!pen) return
    pen.setTransform(scale, 0, 0, scale, 0, 0)
    pen.clearRect(0, 0, w, h)
    const size = Math.min(1, Math.max(0.35, this.cy.zoom()))
    this.particles = this.particles.filter((p) => now < p.began + p.takes)
    for (const p of this.particles) {
      if (now < p.began) continue
      const at = this.along(p.edge, (now - p.began) / p.takes)
      if (!at) continue
      pen.fillStyle = p.error ? COLORS.failing : COLORS.ok
      pen.strokeStyle = this.dark.matches ? '#10161f' : '#ffffff'
      pen.lineWidth = 1
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
    this.locks(pen, size)
  }

  private along(id: string, share: number): { x: number; y: number } | null {
    const edge = this.cy.getElementById(id)
    if (edge.empty()) return null
    const a = edge.sourceEndpoint()
    const b = edge.targetEndpoint()
    if (!a || !b) return null
    const zoom = this.cy.zoom()
    const pan = this.cy.pan()
    return { x: (a.x + (b.x - a.x) * share) * zoom + pan.x, y: (a.y + (b.y - a.y) * share) * zoom + pan.y }
  }

  /** Above the moving dots, on a disc of the background's colour, so that no dot hides one. */
  private locks(pen: CanvasRenderingContext2D, size: number) {
    for (const edge of this.byId.values()) {
      if (!edge.mtls) continue
      const at = this.along(edge.id, 0.22)
      if (!at) continue
      pen.save()
      pen.translate(at.x, at.y)
      pen.scale(size, size)
      pen.fillStyle = this.dark.matches ? '#10161f' : '#f5f7fa'
      pen.beginPath()
      pen.arc(0, -1, 9, 0, 2 * Math.PI)
      pen.fill()
      pen.strokeStyle = pen.fillStyle = this.dark.matches ? '#9aa9ba' : '#5d6b7a'
      pen.lineWidth = 1.4
      pen.beginPath()
      pen.arc(0, -3, 3, Math.PI, 0)
      pen.stroke()
      pen.fillRect(-4.5, -3, 9, 7)
      pen.restore()
    }
  }

  private style(): cytoscape.StylesheetJson {
    const text = this.dark.matches ? '#e6edf5' : '#1c2733'
    const back = this.dark.matches ? '#18212d' : '#ffffff'
    return [
      {
        selector: 'node',
        style: {
          shape: 'data(shape)' as unknown as cytoscape.Css.NodeShape,
          width: 44,
          height: 38,
          'background-color': back,
          'border-width': 2.5,
          'border-color': 'data(color)',
          label: 'data(label)',
          color: text,
          'font-size': 12,
          'text-wrap': 'wrap',
          'text-valign': 'bottom',
          'text-margin-y': 5,
          'text-background-color': this.dark.matches ? '#10161f' : '#f5f7fa',
          'text-background-opacity': 0.85,
          'text-background-padding': '2px',
        },
      },
      {
        selector: 'node[?box]',
        style: {
          shape: 'round-rectangle',
          'background-opacity': 0.25,
          'border-width': 1,
          'border-color': '#8a94a3',
          'border-style': 'dashed',
          padding: '24px',
          'text-valign': 'top',
          'text-margin-y': 18,
          'font-weight': 600,
        },
      },
      {
        selector: 'edge',
        style: {
          width: 'data(width)',
          'line-color': 'data(color)',
          'target-arrow-color': 'data(color)',
          'target-arrow-shape': 'triangle',
          'curve-style': 'straight',
          label: 'data(label)',
          color: text,
          'font-size': 10,
          'text-margin-y': -10,
          'text-rotation': 'autorotate',
          'text-background-color': this.dark.matches ? '#10161f' : '#f5f7fa',
          'text-background-opacity': 0.9,
          'text-background-padding': '2px',
        },
      },
      { selector: '.idle', style: { opacity: 0.22 } },
      {
        selector: '.chosen',
        style: { 'underlay-color': '#2a6fdb', 'underlay-opacity': 0.25, 'underlay-padding': 7 },
      },
    ]
  }
}
