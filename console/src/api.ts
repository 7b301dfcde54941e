// Asking the console's server; the shapes of its answers are written by tools/shapes.py.

import { onVisibility } from './polled.svelte'
import { authorization, ended } from './session.svelte'
import type {
  Applied,
  ApplicationPage,
  ApplicationRow,
  Badges,
  Board,
  Change,
  Check,
  ConfigPage,
  ConfigRow,
  Edge,
  Effect,
  EnvoyPage,
  Forms,
  Graph,
  History,
  LogLine,
  Mesh,
  Namespace,
  Node,
  PlainCalls,
  Pod,
  Schema,
  ServicePage,
  ServiceRow,
  Who,
  WorkloadPage,
  WorkloadRow,
} from './shapes'

export type * from './shapes'
export type GraphKind = 'versionedApp' | 'app' | 'workload' | 'service'

const ROOT = '/kiali/api'

/** What the console answers. Raises Error with a sentence. */
export async function asked(path: string, init?: RequestInit): Promise<Response> {
  const answer = await fetch(ROOT + path, init).catch(() => {
    throw new Error('The console does not answer; start it again with: lateen dashboard kiali')
  })
  if (answer.ok) return answer
  const text = (await answer.text()) || `HTTP ${answer.status}`
  if (answer.status === 401) ended(text)
  throw new Error(text)
}

const get = async <T>(path: string, init?: RequestInit): Promise<T> => (await (await asked(path, init)).json()) as T

export const namespaces = () => get<Namespace[]>('/namespaces')

export const mesh = () => get<Mesh>('/mesh')

const where = (namespace: string) => (namespace ? `?namespace=${encodeURIComponent(namespace)}` : '')
const path = (...parts: string[]) => parts.map((p) => `/${encodeURIComponent(p)}`).join('')

export const applications = (namespace: string) => get<ApplicationRow[]>(`/applications${where(namespace)}`)
export const workloads = (namespace: string) => get<WorkloadRow[]>(`/workloads${where(namespace)}`)
export const application = (namespace: string, name: string) => get<ApplicationPage>(path('applications', namespace, name))

export const services = (namespace: string) => get<ServiceRow[]>(`/services${where(namespace)}`)
export const config = (namespace: string) => get<ConfigRow[]>(`/config${where(namespace)}`)
export const workload = (namespace: string, name: string, kind: string) =>
  get<WorkloadPage>(`${path('workloads', namespace, name)}?kind=${encodeURIComponent(kind)}`)
export const service = (namespace: string, name: string) => get<ServicePage>(path('services', namespace, name))
export const object = (kind: string, namespace: string, name: string) => get<ConfigPage>(path('config', kind, namespace, name))

/** Findings about a YAML text as if it were applied. */
export const check = (text: string) => get<Check[]>('/check', { method: 'POST', body: text, headers: authorization() })

/** What applying a YAML text, or deleting its objects, would change at the proxies. */
export const effect = (text: string, gone: boolean) => 
  get<Effect>(`/effect?delete=${gone}`, { method: 'POST', body: text, headers: authorization() })

const kept = new Map<string, Promise<unknown>>()
/** Asks once for what does not change; again where that failed. */
function once<T>(path: string): Promise<T> {
  const found = kept.get(path) ?? get<T>(path)
  kept.set(path, found)
  found.catch(() => kept.delete(path))
  return found as Promise<T>
}

/** The fields of a kind. */
export const schema = (kind: string) => once<Schema>(path('schemas', kind))

export const boards = () => get<Board[]>('/boards')

export interface Series {
  metric: Record<string, string>
  /** Pairs of seconds since 1970 and value; what is not a number is left out. */
  points: [number, number][]
}

/** A PromQL query over a time range, all in seconds. */
export async function queryRange(query: string, start: number, end: number, step: number): Promise<Series[]> {
  const asked = new URLSearchParams({ query, start: String(start), end: String(end), step: String(step) })
  const found = await get<{ data: { result: { metric: Record<string, string>; values: [number, string][] }[] } }>(`/v1/query_range?${asked}`)
  return found.data.result.map((s) => ({
    metric: s.metric,
    points: s.values.map(([t, v]): [number, number] => [t, Number(v)]).filter(([, v]) => Number.isFinite(v)),
  }))
}

/** The values of a label among the series that `match` selects, sorted. */
export async function labelValues(label: string, match: string): Promise<string[]> {
  const found = await get<{ data: string[] }>(`/v1/label/${label}/values?${new URLSearchParams({ 'match[]': match })}`)
  return found.data.filter((v) => v && v !== 'unknown')
}

/** What the forms about a service begin with. */
export const forms = (namespace: string, service: string) => get<Forms>(path('wizards', namespace, service))

/** The YAML that does what a form about a service says. */
export async function wizard(name: string, namespace: string, service: string, form: unknown): Promise<string> {
  const answer = await asked(path('wizards', name, namespace, service), { method: 'POST', body: JSON.stringify(form) })
  return answer.text()
}

/** The graph as it is now, or as it was at a time (seconds since 1970). */
export const graph = (kind: GraphKind, namespace: string, window: number, at = 0) =>
  get<Graph>(`/graph?${new URLSearchParams({ kind, namespaces: namespace, window: String(window), ...(at ? { at: String(at) } : {}) })}`)

/** What Envoy's response flags mean. */
export const flags = () => once<Record<string, string>>('/flags')

export const badges = () => get<Badges>('/badges')

/** Calls in plaintext of the last hour; `all`: by the logs of all pods, however many there are. */
export const plaintext = (namespace: string, all: boolean) =>
  get<PlainCalls[]>(`/plaintext?${new URLSearchParams({ namespace, ...(all ? { logs: 'all' } : {}) })}`)

/** When configuration changed, the oldest first. */
export const changes = (namespace: string) => get<Change[]>(`/changes${where(namespace)}`)

/** Writes the objects of a YAML text as the user who is signed in. */
export const apply = (text: string, dry: boolean) =>
  get<Applied>(`/apply?dryRun=${dry}`, { method: 'POST', body: text, headers: authorization() })

/** `generation`: only if nobody has changed the object since. */
export const remove = (kind: string, namespace: string, name: string, generation?: number) =>
  get<unknown>(`${path('config', kind, namespace, name)}${generation ? `?generation=${generation}` : ''}`, { method: 'DELETE', headers: authorization() })

/** Whom the token is of that the user signed in with. */
export const whoami = () => get<Who>('/whoami', { headers: authorization() })

/** What a pod's proxy was given. */
export const envoy = (pod: Pod) => get<EnvoyPage>(path('envoy', pod.namespace, pod.name), { headers: authorization() })

/** The rates that the collector has kept of a node or an edge. */
export const history = (kind: GraphKind, subject: Node | Edge, window: number) =>
  get<History>(`/graph/history?${new URLSearchParams({ kind, id: subject.id, window: String(window) })}`)

export function pods(node: Node): Promise<Pod[]> {
  const query = new URLSearchParams({ namespace: node.namespace })
  if (node.app) query.set('app', node.app)
  if (node.version) query.set('version', node.version)
  // An application's node names one of its workloads; it has the pods of all.
  if (node.kind === 'workload') query.set('workload', node.name)
  return get<Pod[]>(`/pods?${query}`)
}

/** Calls `seen` with each new graph; returns how to stop. A page in the background has no connection: a browser opens only
 * six of them to one server, and the seventh page would wait for ever. */
export function watchGraph(
  question: { kind: GraphKind; namespaces: string[]; window: number },
  seen: (graph: Graph) => void,
  failed: (text: string) => void,
): () => void {
  const query = new URLSearchParams({
    kind: question.kind,
    namespaces: question.namespaces.join(','),
    window: String(question.window),
  })
  let source: EventSource | null = null
  const follow = (visible: boolean) => {
    source?.close()
    source = visible ? new EventSource(`${ROOT}/graph/stream?${query}`) : null
    if (!source) return
    source.onmessage = (event) => seen(JSON.parse(event.data as string) as Graph)
    source.onerror = () => failed('The collector does not answer. Install it with: lateen addons apply')
  }
  follow(!document.hidden)
  const stop = onVisibility(follow)
  return () => {
    stop()
    source?.close()
  }
}

/** Follows the log of a container, or (without a name) of all of the pod's. `begin`: its first lines come, for the first time or
 * again after the connection was lost. */
export function watchLog(pod: Pod, container: string, begin: () => void, line: (line: LogLine) => void, failed: (text: string) => void) {
  const path = `${ROOT}/pods/${pod.namespace}/${pod.name}/log?container=${encodeURIComponent(container)}`
  const source = new EventSource(path)
  source.onopen = begin
  source.onmessage = (event) => line(JSON.parse(event.data as string) as LogLine)
  source.onerror = () => failed('The console does not answer; trying again.')
  source.addEventListener('failure', (event) => failed(JSON.parse((event as MessageEvent).data as string) as string))
  source.addEventListener('end', () => source.close())
  return () => source.close()
}
