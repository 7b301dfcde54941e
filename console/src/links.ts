// Addresses of the console's pages, and how ages are told.

import type { ConfigRow, ServiceRow, WorkloadRow } from './shapes'

export type Lists = 'applications' | 'workloads' | 'services' | 'config'

const path = (...parts: string[]) => `#/${parts.map(encodeURIComponent).join('/')}`

export const workloadLink = (r: Pick<WorkloadRow, 'namespace' | 'name' | 'kind'>) =>
  `${path('workloads', r.namespace, r.name)}${r.kind ? `?kind=${encodeURIComponent(r.kind)}` : ''}`

export const applicationLink = (namespace: string, name: string) => path('applications', namespace, name)

export const serviceLink = (r: Pick<ServiceRow, 'namespace' | 'name'>) => path('services', r.namespace, r.name)

export const configLink = (r: Pick<ConfigRow, 'kind' | 'namespace' | 'name'>) => path('config', r.kind, r.namespace, r.name)

/** An object as findings spell it: `Gateway default/web`, `GatewayClass istio`. */
export const ref = (r: Pick<ConfigRow, 'kind' | 'namespace' | 'name'>) => `${r.kind} ${r.namespace ? `${r.namespace}/` : ''}${r.name}`

/** The link of an object as it is spelled in findings: `Gateway default/web`. */
export function refLink(ref: string): string {
  const [kind = '', where = ''] = ref.split(' ')
  const [namespace, name] = where.includes('/') ? where.split('/') as [string, string] : ['', where]
  return configLink({ kind, namespace, name })
}

export function age(created: string): string {
  const seconds = Math.max(0, (Date.now() - Date.parse(created)) / 1000)
  if (Number.isNaN(seconds)) return ''
  if (seconds < 120) return `${Math.round(seconds)} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`
}
