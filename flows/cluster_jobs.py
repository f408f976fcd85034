"""The Jobs that Prefect's Kubernetes workers have made for runs, found by the label that the worker sets.

Reads and deletes Jobs of one namespace through the API server that the pod's service account, or the file of KUBECONFIG, names.
kubernetes_asyncio comes with prefect-kubernetes, the extra that a worker of a Kubernetes pool needs.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

LABEL = "prefect.io/flow-run-id"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DEFAULT_NAMESPACE = "crawl2chat"  # that of infra/kubernetes/job_template.yaml


class Job(NamedTuple):
    """A Job of a run."""

    namespace: str
    name: str
    run_id: UUID


class Jobs:
    """The Jobs of a namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def active(self) -> list[Job]:
        """The Jobs of runs that have a pod that is neither finished nor failed."""
        return asyncio.run(self._active())

    def delete(self, job: Job) -> None:
        """Delete a Job with its pods."""
        asyncio.run(self._delete(job))

    async def _active(self) -> list[Job]:
        async with self._batch() as batch:
            found = await batch.list_namespaced_job(self.namespace, label_selector=LABEL)
        jobs = []
        for job in found.items:
            with contextlib.suppress(ValueError):  # somebody else's label
                if job.status and job.status.active:
                    jobs.append(Job(self.namespace, job.metadata.name, UUID(job.metadata.labels[LABEL])))
        return jobs

    async def _delete(self, job: Job) -> None:
        async with self._batch() as batch:
            # Without this policy the API server keeps the pods of a Job that it deletes.
            await batch.delete_namespaced_job(job.name, job.namespace, propagation_policy="Background")

    @contextlib.asynccontextmanager
    async def _batch(self) -> AsyncIterator[Any]:
        from kubernetes_asyncio import client, config

        if _is_pod():
            config.load_incluster_config()  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(os.environ["KUBECONFIG"])
        async with client.ApiClient() as api:
            yield client.BatchV1Api(api)


def configured_jobs() -> Jobs | None:
    """The Jobs of the cluster that this process is in, or that KUBECONFIG names; None without one."""
    # ~/.kube/config does not count: it may name a cluster that has nothing to do with these runs.
    if not _is_pod() and not os.environ.get("KUBECONFIG"):
        return None
    return Jobs(NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.exists() else DEFAULT_NAMESPACE)


def _is_pod() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
