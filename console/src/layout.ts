// Where nodes and edges of the graph go. Pure: dagre gives ranks and orders, and edges keep clear of what they pass.

import { Graph, layout } from '@dagrejs/dagre'

import type { Point } from './path'

export interface Box {
  id: string
  /** The box of an application's versions. */
  parent?: string
  /** Of its label; two where it is not given. */
  lines?: number
}
export interface Link {
  id: string
  source: string
  target: string
}
export interface Arranged {
  places: Map<string, Point>
  /** The points between both ends at which an edge bends; none where it is straight. */
  bends: Map<string, Point[]>
}

export const WIDTH = 44
export const HEIGHT = 38
/** Below a node there is room for its label; one of two lines takes this much. */
const LABEL = 26
const LINE = 15
const STUB = 12

/** From left to right, or from top to bottom where `down`. */
export function arrange(boxes: string[], given: Box[], all: Link[], down: boolean): Arranged {
  const byId = (a: { id: string }, b: { id: string }) => (a.id < b.id ? -1 : 1)
  const [nodes, links] = [[...given].sort(byId), [...all].sort(byId)]
  const graph = new Graph({ compound: true, multigraph: true })
  graph.setGraph({ rankdir: down ? 'TB' : 'LR', nodesep: down ? 30 : 40, ranksep: down ? 78 : 140, edgesep: 18 })
  graph.setDefaultEdgeLabel(() => ({}))
  for (const id of [...boxes].sort()) graph.setNode(id, {})
  for (const { id, lines } of nodes) graph.setNode(id, { width: down ? WIDTH + 36 : WIDTH, height: reserved(lines) })
  for (const { id, parent } of nodes) if (parent) graph.setParent(id, parent)
  for (const { id, source, target } of links) if (source !== target) graph.setEdge(source, target, {}, id)
  layout(graph)
  const places = new Map(nodes.map(({ id }) => [id, centre(graph.node(id) as unknown as Point)]))
  const pairs = new Map<string, number>()
  for (const link of links) pairs.set(pair(link), (pairs.get(pair(link)) ?? 0) + 1)
  const columns = new Set([...places.values()].map((p) => Math.round(down ? p.y : p.x)))
  const bends = new Map<string, Point[]>()
  for (const link of links) {
    if (link.source === link.target) continue
    const points = (graph.edge(link.source, link.target, link.id) as unknown as { points: Point[] }).points.slice(1, -1).map(centre)
    const alone = pairs.get(pair(link)) === 1
    const kept = points.filter((p) => !alone || columns.has(Math.round(down ? p.y : p.x)))
    bends.set(link.id, routed(places.get(link.source)!, kept, places.get(link.target)!, columns, down))
  }
  return { places, bends }
}

/** The most that a graph is stretched: beyond, edges are longer than they are clear. */
const STRETCH = 1.8

/** The graph stretched to the shape of the canvas: along its flow there is more room for labels of edges, across for names. */
export function stretched({ places, bends }: Arranged, width: number, height: number): Arranged {
  const all = [...places.values()]
  const extent = (of: (p: Point) => number, more: number) => Math.max(...all.map(of)) - Math.min(...all.map(of)) + more
  const [w, h] = all.length ? [extent((p) => p.x, WIDTH), extent((p) => p.y, HEIGHT + LABEL)] : [1, 1]
  const shape = width / w / (height / h) || 1
  const bounded = (by: number) => Math.max(1, Math.min(STRETCH, by))
  const moved = ({ x, y }: Point) => ({ x: x * bounded(shape), y: y * bounded(1 / shape) })
  return {
    places: new Map([...places].map(([id, p]) => [id, moved(p)])),
    bends: new Map([...bends].map(([id, points]) => [id, points.map(moved)])),
  }
}

const pair = (link: Link) => [link.source, link.target].sort().join('\n')

/** The height of a node whose symbol is LABEL / 2 above the middle, as those of all nodes: so edges between them are straight. */
const reserved = (lines = 2) => HEIGHT + LABEL + 2 * LINE * Math.max(0, lines - 2)

/** The middle of the symbol: labels take the lower part of what dagre reserves. */
const centre = (p: Point): Point => ({ x: p.x, y: p.y - LABEL / 2 })

/**
 * Edges cross a column of nodes only along the flow: they leave and reach nodes that way, and pass others on a lane of
 * their own. Between columns there is nothing that they could run through.
 */
function routed(from: Point, through: Point[], to: Point, columns: Set<number>, down: boolean): Point[] {
  const along = (p: Point) => (down ? p.y : p.x)
  const across = (p: Point) => (down ? p.x : p.y)
  const at = (a: number, b: number): Point => (down ? { x: b, y: a } : { x: a, y: b })
  const half = (down ? HEIGHT + LABEL : WIDTH) / 2 + STUB
  const sign = Math.sign(along(to) - along(from)) || 1
  const path = [at(along(from) + sign * half, across(from))]
  for (const p of through) {
    const inside = columns.has(Math.round(along(p)))
    path.push(...(inside ? [at(along(p) - sign * half, across(p)), at(along(p) + sign * half, across(p))] : [p]))
  }
  path.push(at(along(to) - sign * half, across(to)))
  const whole = [from, ...path, to]
  return path.filter((p, i) => !level(whole[i]!, p, whole[i + 2]!))
}

/** Whether the middle one of three points is on the line between the others. */
function level(a: Point, b: Point, c: Point): boolean {
  return Math.abs((b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x)) < 1
}

/** A point relative to the line between two others, as cytoscape's segments want it: share of the way, and distance. */
export function relative(from: Point, to: Point, p: Point): { weight: number; distance: number } {
  const [dx, dy] = [to.x - from.x, to.y - from.y]
  const length = Math.hypot(dx, dy) || 1
  const [px, py] = [p.x - from.x, p.y - from.y]
  return { weight: (px * dx + py * dy) / length ** 2, distance: (py * dx - px * dy) / length }
}
