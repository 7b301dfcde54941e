import type { BoardPanel, State } from './shapes'

export type Unit = BoardPanel['unit']

/** A number and its noun: `1 proxy`, `2 proxies`. */
export const count = (n: number, one: string, many = `${one}s`) => `${n} ${n === 1 ? one : many}`

/** Little is never shown as nothing, nor almost all as all: SREs act on the difference. */
export function rate(perSecond: number): string {
  if (!perSecond) return '0 rps'
  if (perSecond < 0.01) return '<0.01 rps'
  if (perSecond >= 100) return `${Math.round(perSecond)} rps`
  if (perSecond >= 10) return `${perSecond.toFixed(1)} rps`
  return `${perSecond.toFixed(2)} rps`
}

export function bytes(perSecond: number): string {
  if (perSecond > 0 && perSecond < 1) return '<1 B/s'
  if (perSecond >= 1e9) return `${(perSecond / 1e9).toFixed(1)} GB/s`
  if (perSecond >= 1e6) return `${(perSecond / 1e6).toFixed(1)} MB/s`
  if (perSecond >= 1e3) return `${(perSecond / 1e3).toFixed(1)} kB/s`
  return `${Math.round(perSecond)} B/s`
}

export function percent(share: number): string {
  const value = share * 100
  if (value > 0 && value < 0.1) return '<0.1 %'
  if (value > 99.9 && value < 100) return '>99.9 %'
  return `${value.toFixed((value > 0 && value < 10) || (value > 99 && value < 100) ? 1 : 0)} %`
}

export function milliseconds(value: number | null): string {
  if (value === null) return '–'
  return amount(value, 'ms')
}

/** A value of a chart in its unit, short enough for an axis. */
export function amount(value: number, unit: Unit): string {
  if (unit === 'share') return `${exactly(value * 100)} %`
  if (unit === 'ms') return value >= 1000 ? `${+(value / 1000).toFixed(2)} s` : `${+value.toFixed(value < 10 ? 1 : 0)} ms`
  if (unit === 's') return value < 1 ? `${+(value * 1000).toFixed(1)} ms` : `${+value.toFixed(2)} s`
  if (unit === 'bytes' || unit === 'Bps') {
    const [n, prefix] = value >= 1e9 ? [value / 1e9, 'G'] : value >= 1e6 ? [value / 1e6, 'M'] : value >= 1e3 ? [value / 1e3, 'k'] : [value, '']
    return `${+n.toFixed(prefix || n < 10 ? 1 : 0)} ${prefix}B${unit === 'Bps' ? '/s' : ''}`
  }
  const text = `${+value.toFixed(value < 1 ? 3 : value < 100 ? 2 : 0)}`
  if (unit === 'cores') return `${text} ${value === 1 ? 'core' : 'cores'}`
  return unit === 'rps' ? `${text} rps` : text
}

/** Of one hundred, with as many places as tell it from 0 and from 100. */
function exactly(value: number): number {
  const places = [1, 2, 3, 4].find((n) => (+value.toFixed(n) !== 0 || !value) && (+value.toFixed(n) !== 100 || value === 100))
  return +value.toFixed(places ?? 4)
}

/** A time of day in 24 hours; `ms` since 1970. */
export const clock = (ms: number) => new Date(ms).toLocaleTimeString('en-GB')

/** A day and a time in 24 hours; `ms` since 1970. */
export const moment = (ms: number) => `${new Date(ms).toLocaleDateString('en-CA')} ${clock(ms)}`

export type Health = 'ok' | 'degraded' | 'failing' | 'idle'

/** Kiali's tolerances: any error is a degradation, from ten percent on it is a failure. */
export function health(errorRate: number, traffic: number): Health {
  if (!traffic) return 'idle'
  if (errorRate >= 0.1) return 'failing'
  return errorRate > 0 ? 'degraded' : 'ok'
}

/** What runs, and whether its requests succeed. */
export type Condition = State | 'failing'

const GRAVITY: Condition[] = ['healthy', 'idle', 'degraded', 'failing', 'down']
const TRAFFIC: Record<Health, Condition> = { ok: 'healthy', idle: 'healthy', degraded: 'degraded', failing: 'failing' }

/** The state of what runs, made worse by requests that fail: so a list agrees with the graph. */
export function together(state: Condition, says: string, load: { rate: number; errors: number } | undefined): { state: Condition; says: string } {
  const traffic = load ? TRAFFIC[health(load.errors, load.rate)] : 'healthy'
  if (traffic === 'healthy') return { state, says }
  const why = `${percent(load!.errors)} of its requests fail`
  return { state: GRAVITY.indexOf(state) > GRAVITY.indexOf(traffic) ? state : traffic, says: says ? `${says}; ${why}` : why }
}

export const COLORS: Record<Health, string> = {
  ok: '#2f9e5b',
  degraded: '#e8890c',
  failing: '#d3322f',
  idle: '#8a94a3',
}

/** Rising times with one more in each gap, where no line has a value: lines end there instead of leading across it. */
export function withGaps(times: number[]): number[] {
  const steps = times.slice(1).map((t, i) => t - times[i]!)
  const step = Math.min(...steps)
  return times.flatMap((t, i) => (steps[i]! > 1.5 * step ? [t, t + step] : [t]))
}
