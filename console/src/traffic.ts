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

/** By the values of `labels`, joined with slashes. */
export async function loads(labels: string[]): Promise<Map<string, Load>> {
  const now = Math.floor(Date.now() / 1000)
  const by = labels.join(', ')
  const of = (metric: string, more = '') => COUNTED.map((once) => `rate(${metric}{${once}${more}}[1m])`).join(' or ')
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
