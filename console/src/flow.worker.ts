// Draws the traffic of the graph off the main thread, which is busy enough with the graph itself.

import { draw, Flow, type Colors, type Message, type Sight } from './flow'

const flow = new Flow()
let canvas: OffscreenCanvas
let pen: OffscreenCanvasRenderingContext2D | null = null
let sight: Sight = { zoom: 1, pan: { x: 0, y: 0 }, width: 0, height: 0, scale: 1 }
let colors: Colors = { rim: '#fff', ok: '#000', failing: '#000' }
let waiting = false

function next() {
  if (waiting || !pen) return
  waiting = true
  requestAnimationFrame(frame)
}

function frame() {
  waiting = false
  if (!pen) return
  const [width, height] = [Math.round(sight.width * sight.scale), Math.round(sight.height * sight.scale)]
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height]
  draw(pen, flow, performance.now(), sight, colors)
  if (flow.size) next()
}

onmessage = ({ data }: MessageEvent<Message>) => {
  if (data.kind === 'canvas') {
    canvas = data.canvas
    pen = canvas.getContext('2d')
  } else if (data.kind === 'sight') sight = data.sight
  else if (data.kind === 'colors') colors = data.colors
  else if (data.kind === 'paths') for (const [edge, points] of data.paths) flow.route(edge, points)
  else if (data.kind === 'bursts') flow.add(data.bursts, performance.now())
  else if (data.kind === 'quiet') flow.hush(data.edges)
  else flow.clear()
  if (flow.size || data.kind === 'clear' || data.kind === 'quiet') next()
}
