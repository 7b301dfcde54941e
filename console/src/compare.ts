// Two traces beside each other, and many of them in figures.

import type { Trace } from './traces'

/** Spans of the same service and operation, below the same ones. Durations in microseconds, all of them together. */
export interface Pair {
  key: string
  service: string
  operation: string
  depth: number
  counts: [number, number]
  took: [number, number]
  failed: [number, number]
}

/** The spans of both traces in the order of the first, those that only the second has after their neighbours. */
export function compared(one: Trace, two: Trace): Pair[] {
  const found = new Map<string, Pair>()
  const order: string[] = []
  for (const [side, trace] of [one, two].entries()) {
    const path: string[] = []
    let before = ''
    for (const row of trace.rows) {
      path.length = row.depth
      path.push(`${row.service}\t${row.span.operationName}`)
      const key = path.join('\n')
      let pair = found.get(key)
      if (!pair) {
        pair = { key, service: row.service, operation: row.span.operationName, depth: row.depth, counts: [0, 0], took: [0, 0], failed: [0, 0] }
        found.set(key, pair)
        order.splice(before ? order.indexOf(before) + 1 : order.length, 0, key)
      }
      pair.counts[side]!++
      pair.took[side]! += row.span.duration
      if (row.failed) pair.failed[side]!++
      before = key
    }
  }
  return order.map((key) => found.get(key)!)
}

export interface Operation {
  service: string
  operation: string
  count: number
  failed: number
  median: number
  p95: number
}

/** The spans of many traces by service and operation, the one that took longest first. */
export function operations(traces: Trace[]): Operation[] {
  const found = new Map<string, { durations: number[]; failed: number }>()
  for (const row of traces.flatMap((t) => t.rows)) {
    const key = `${row.service}\n${row.span.operationName}`
    const kept = found.get(key) ?? { durations: [], failed: 0 }
    kept.durations.push(row.span.duration)
    kept.failed += Number(row.failed)
    found.set(key, kept)
  }
  const out = [...found].map(([key, { durations, failed }]) => {
    const [service = '', operation = ''] = key.split('\n')
    durations.sort((a, b) => a - b)
    return { service, operation, count: durations.length, failed, median: rank(durations, 0.5), p95: rank(durations, 0.95) }
  })
  return out.sort((a, b) => b.p95 - a.p95)
}

/** Counts by time and by the length's power of two: what a heat map shows. */
export function heat(traces: Trace[], columns: number): { cells: { column: number; row: number; count: number; errors: number }[]; from: number; to: number; rows: number[] } {
  const from = Math.min(...traces.map((t) => t.start))
  const to = Math.max(...traces.map((t) => t.start)) + 1
  const power = (t: Trace) => Math.floor(Math.log2(Math.max(1, t.length)))
  const powers = traces.map(power)
  const [low, high] = [Math.min(...powers), Math.max(...powers)]
  const cells = new Map<string, { column: number; row: number; count: number; errors: number }>()
  for (const t of traces) {
    const [column, row] = [Math.floor(((t.start - from) / (to - from)) * columns), power(t) - low]
    const cell = cells.get(`${column},${row}`) ?? { column, row, count: 0, errors: 0 }
    cell.count++
    cell.errors += Number(t.errors > 0)
    cells.set(`${column},${row}`, cell)
  }
  return { cells: [...cells.values()], from, to, rows: Array.from({ length: high - low + 1 }, (_, i) => 2 ** (low + i)) }
}

/** The value at a share of a sorted list. */
function rank(sorted: number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? 0
}
