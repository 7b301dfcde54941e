// Where the edges of a drawn graph run, as cytoscape has them; read once until something moves.

import type cytoscape from 'cytoscape'

import { Path, type Point } from './path'

export class Routes {
  private paths = new Map<string, Path>()

  constructor(private cy: cytoscape.Core) {}

  /** The path of an edge in the graph's coordinates; null where it is not drawn. */
  of(id: string): Path | null {
    const edge = this.cy.getElementById(id)
    if (edge.empty() || edge.hasClass('hidden')) return null
    const known = this.paths.get(id)
    if (known) return known
    const [a, b] = [edge.sourceEndpoint(), edge.targetEndpoint()]
    if (!a || !b) return null
    const path = new Path([a, ...(edge.hasClass('straight') ? [] : (edge.segmentPoints() ?? [])), b])
    this.paths.set(id, path)
    return path
  }

  /** A point of an edge in pixels of the canvas. */
  along(id: string, share: number): Point | null {
    const path = this.of(id)
    if (!path) return null
    const [p, zoom, pan] = [path.at(share), this.cy.zoom(), this.cy.pan()]
    return { x: p.x * zoom + pan.x, y: p.y * zoom + pan.y }
  }

  forget(edges?: string[]) {
    if (edges) for (const id of edges) this.paths.delete(id)
    else this.paths.clear()
  }
}
