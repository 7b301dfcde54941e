// How cytoscape draws nodes and edges.

import type cytoscape from 'cytoscape'

import { HEIGHT, WIDTH } from './layout'
import type { Ink } from './marks'

export const BORDER = 2.5

export function style(ink: Ink): cytoscape.StylesheetJson {
  return [
    {
      selector: 'node',
      style: {
        shape: 'data(shape)' as unknown as cytoscape.Css.NodeShape,
        width: WIDTH,
        height: HEIGHT,
        'background-color': ink.panel,
        'border-width': BORDER,
        'border-color': 'data(color)',
      },
    },
    {
      selector: 'node[?box]',
      style: { shape: 'round-rectangle', 'background-opacity': 0.25, 'border-width': 1, 'border-color': '#8a94a3', 'border-style': 'dashed', padding: '26px' },
    },
    {
      selector: 'edge',
      style: {
        width: 'data(width)',
        'line-color': 'data(color)',
        'target-arrow-color': 'data(color)',
        'target-arrow-shape': 'triangle',
        'curve-style': 'round-segments' as unknown as 'segments',
        'edge-distances': 'node-position',
        'segment-weights': ((e: cytoscape.EdgeSingular) => e.data('weights') as number[]) as unknown as number[],
        'segment-distances': ((e: cytoscape.EdgeSingular) => e.data('distances') as number[]) as unknown as number[],
        'segment-radii': 16 as unknown as number[],
      } as cytoscape.Css.Edge,
    },
    { selector: 'edge.straight', style: { 'curve-style': 'straight' } },
    { selector: '.idle', style: { opacity: 0.22 } },
    { selector: '.other', style: { opacity: 0.25 } },
    { selector: '.hidden', style: { display: 'none' } },
    { selector: '.found', style: { 'underlay-color': '#e8890c', 'underlay-opacity': 0.35, 'underlay-padding': 7 } },
    { selector: '.pointed', style: { 'underlay-color': ink.accent, 'underlay-opacity': 0.6, 'underlay-padding': 5 } },
    { selector: '.chosen', style: { 'underlay-color': '#2a6fdb', 'underlay-opacity': 0.25, 'underlay-padding': 7 } },
  ]
}
