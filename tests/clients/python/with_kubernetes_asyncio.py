"""kubernetes_asyncio: calls, and a watch that is asked for as ``watch=True``."""

import asyncio

from kubernetes_asyncio import client, config, watch

NS = "py-asyncio"


async def main():
    await config.load_kube_config()
    async with client.ApiClient() as api:
        core = client.CoreV1Api(api)
        await core.create_namespace({"metadata": {"name": NS}})
        await core.create_namespaced_config_map(NS, {"metadata": {"name": "m"}, "data": {"a": "1"}})
        async with watch.Watch().stream(core.list_namespaced_config_map, NS, timeout_seconds=5) as events:
            async for event in events:
                if event["object"].metadata.name == "m":
                    break
            else:
                raise AssertionError("the watch has not shown the object")
        await core.delete_namespace(NS)


asyncio.run(main())
