// Requests, errors and durations of everything in a list, by two or three questions about the last minute.

import { queryRange } from './api'
import type { Lists } from './links'
import { COUNTED, FAILED } from './shapes'

export interface Load {
  /** Requests per second, the share of them that failed, and the 95th percentile in milliseconds. */
  rate: number
  errors: number
  p95: number | null
}

/** The labels that name the rows of a list, as namespace and name. */
export const BY: Record<Exclude<Lists, 'config'>, string[]> = {
  applications: ['destination_workload_namespace', 'destination_canonical_service'],
  workloads: ['destination_workload_namespace', 'destination_workload'],
  services: ['destination_service_namespace', 'destination_service_name'],
}

/** PromQL: the rates of a metric's series, each request counted once. `more`: matchers, after a comma. */
export function counted(metric: string, window: string, more = ''): string {
  const given: Record<string, string> = { metric, window, more }
  return COUNTED.replace(/\$(metric|window|more)/g, (_, name: string) => given[name]!)
}

/** By the values of `labels`, joined with slashes. */
export async function loads(labels: string[]): Promise<Map<string, Load>> {
  const now = Math.floor(Date.now() / 1000)
  const by = labels.join(', ')
  const of = (metric: string, more = '') => counted(metric, '1m', more)
  const ask = async (query: string) => {
    const found = await queryRange(query, now, now, 1)
    return new Map(found.map((s) => [labels.map((l) => s.metric[l] ?? '').join('/'), s.points.at(-1)?.[1] ?? 0]))
  }
  const [rates, failed, slow] = await Promise.all([
    ask(`sum by (${by}) (${of('istio_requests_total')})`),
    ask(`sum by (${by}) (${FAILED.map((f) => of('istio_requests_total', `,${f}`)).join(' or ')})`),
    ask(`histogram_quantile(0.95, sum by (${by}, le) (${of('istio_request_duration_milliseconds_bucket')}))`),
  ])
  return new Map([...rates].map(([key, r]) => [key, { rate: r, errors: r ? (failed.get(key) ?? 0) / r : 0, p95: slow.get(key) ?? null }]))
}
