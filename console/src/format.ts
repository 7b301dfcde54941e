export function rate(perSecond: number): string {
  if (perSecond >= 100) return `${Math.round(perSecond)} rps`
  if (perSecond >= 10) return `${perSecond.toFixed(1)} rps`
  return `${perSecond.toFixed(2)} rps`
}

export function bytes(perSecond: number): string {
  if (perSecond >= 1e6) return `${(perSecond / 1e6).toFixed(1)} MB/s`
  if (perSecond >= 1e3) return `${(perSecond / 1e3).toFixed(1)} kB/s`
  return `${Math.round(perSecond)} B/s`
}

export function percent(share: number): string {
  const value = share * 100
  return `${value > 0 && value < 0.1 ? '<0.1' : value.toFixed(value < 10 && value > 0 ? 1 : 0)} %`
}

export function milliseconds(value: number | null): string {
  if (value === null) return '–'
  return value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`
}

export type Health = 'ok' | 'degraded' | 'failing' | 'idle'

/** Kiali's tolerances: any error is a degradation, from ten percent on it is a failure. */
export function health(errorRate: number, traffic: number): Health {
  if (!traffic) return 'idle'
  if (errorRate >= 0.1) return 'failing'
  return errorRate > 0 ? 'degraded' : 'ok'
}

export const COLORS: Record<Health, string> = {
  ok: '#2f9e5b',
  degraded: '#e8890c',
  failing: '#d3322f',
  idle: '#8a94a3',
}
