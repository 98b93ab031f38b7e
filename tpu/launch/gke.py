"""Kubernetes: a JobSet for TPU slices or GPU nodes of GKE, by kubectl, and the same by XPK."""

import shlex
from collections.abc import Mapping
from typing import Annotated, Any

import yaml

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.ranges import AT_LEAST_1
from tpu.launch.job import Job
from tpu.launch.place import Step
from tpu.pods import CHIPS_PER_HOST, pod

ACTIONS = {
    "submit": "hand the manifest to the cluster; the JobSet restarts what fails or is preempted",
    "status": "show the JobSet and its pods",
    "logs": "follow the log of the first pod",
    "delete": "end the job and remove it",
}
MOUNT = "/runs"  # where pods see the bucket
PORT = 9911


@component
class JobSet:
    """A JobSet (jobset.x-k8s.io/v1alpha2): one Job a slice, one pod a host, restarted together.

    image: of the container, with the package installed and the code in `folder`.
    topology: TPUs, as v5p:4x4x4, `slices` times; or "" and `gpus` of a kind (cloud.google.com/gke-accelerator, as
        nvidia-h100-80gb) on each of `nodes` nodes.
    bucket: of Cloud Storage, which pods see as /runs by gcsfuse: job.workdir lies there.
    service_account: of Kubernetes, which may read and write the bucket. namespace, queue (Kueue): "" for none."""

    image: str
    bucket: str
    topology: str = ""
    slices: Annotated[int, AT_LEAST_1] = 1
    gpus: int = 0
    gpu: str = ""
    nodes: Annotated[int, AT_LEAST_1] = 1
    folder: str = "/app"
    service_account: str = "default"
    namespace: str = "default"
    queue: str = ""
    spot: bool = False

    def __post_init__(self) -> None:
        if bool(self.topology) == bool(self.gpus):
            raise UserError("a JobSet has a topology (TPUs) or gpus and gpu: give one of them, not both")
        if self.topology:
            pod(self.topology)
        if self.gpus and not self.gpu:
            raise UserError(f"gpus={self.gpus} of which kind? Set gpu, as nvidia-h100-80gb")

    @property
    def actions(self) -> Mapping[str, str]:
        return ACTIONS

    def files(self, job: Job) -> dict[str, str]:
        if not job.workdir.startswith(f"{MOUNT}/"):
            raise UserError(f"job.workdir={job.workdir!r} is no folder in {MOUNT}, where pods see the bucket")
        return {"jobset.yaml": yaml.safe_dump(self.manifest(job), sort_keys=False, width=120)}

    def manifest(self, job: Job) -> dict[str, Any]:
        if self.topology:
            slice = pod(self.topology)
            hosts, kind, chips = slice.hosts, "google.com/tpu", min(slice.chips, CHIPS_PER_HOST)
            where = {
                "cloud.google.com/gke-tpu-accelerator": slice.generation.gke,
                "cloud.google.com/gke-tpu-topology": slice.shape,
            }
            command = shlex.join(job.on_slices(self.slices))
        else:
            hosts, kind, chips = self.nodes, "nvidia.com/gpu", self.gpus
            where = {"cloud.google.com/gke-accelerator": self.gpu}
            first = f"{job.name}-hosts-0-0.{job.name}"  # the name that a JobSet gives its first pod
            flags = (f"--coordinator={first}:{PORT}", f"--processes={hosts}")
            command = f"{shlex.join(job.command(*flags))} --process=$JOB_COMPLETION_INDEX"
        spot = {"cloud.google.com/gke-spot": "true"} if self.spot else {}
        container = {
            "name": "lm",
            "image": self.image,
            "workingDir": self.folder,
            "command": ["bash", "-c", f"exec {command}"],  # exec: Kubernetes sends SIGTERM to the command itself
            "env": [dict(zip(("name", "value"), pair.split("=", 1), strict=True)) for pair in job.env],
            "ports": [{"containerPort": PORT}],
            "resources": {"limits": {kind: chips}},
            "volumeMounts": [{"name": "runs", "mountPath": MOUNT}],
        }
        volume = {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": {"bucketName": self.bucket}}
        template = {
            "metadata": {"annotations": {"gke-gcsfuse/volumes": "true"}},
            "spec": {
                "restartPolicy": "Never",  # the JobSet restarts all hosts together, as a run needs it
                "serviceAccountName": self.service_account,
                "terminationGracePeriodSeconds": 300,  # in which a run saves
                "nodeSelector": where | spot,
                "containers": [container],
                "volumes": [{"name": "runs", "csi": volume}],
            },
        }
        replicated = {
            "name": "hosts",
            "replicas": self.slices if self.topology else 1,
            "template": {
                "spec": {
                    "parallelism": hosts,
                    "completions": hosts,
                    "completionMode": "Indexed",
                    "backoffLimit": 0,
                    "template": template,
                }
            },
        }
        # One node pool a slice, and a slice to a Job.
        pools = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
        meta: dict[str, Any] = {"name": job.name, "namespace": self.namespace}
        meta |= {"annotations": pools} if self.topology else {}
        meta |= {"labels": {"kueue.x-k8s.io/queue-name": self.queue}} if self.queue else {}
        return {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": meta,
            "spec": {"failurePolicy": {"maxRestarts": job.restarts}, "replicatedJobs": [replicated]},
        }

    def steps(self, action: str, job: Job, folder: str) -> list[Step]:
        kubectl = ("kubectl", f"--namespace={self.namespace}")
        named = f"--selector=jobset.sigs.k8s.io/jobset-name={job.name}"
        first = "batch.kubernetes.io/job-completion-index=0,jobset.sigs.k8s.io/job-index=0"
        return {
            "submit": [Step((*kubectl, "apply", f"--filename={folder}/jobset.yaml"))],
            "status": [
                Step((*kubectl, "get", "jobset", job.name, "--output=wide")),
                Step((*kubectl, "get", "pods", named, "--output=wide")),
            ],
            "logs": [Step((*kubectl, "logs", "--follow", f"{named},{first}", "--container=lm", "--tail=100"))],
            "delete": [Step((*kubectl, "delete", "jobset", job.name))],
        }[action]


@component
class Xpk:
    """A workload of XPK, which makes the manifest itself. `cluster` as XPK made it; image as in `JobSet`."""

    project: str
    zone: str
    cluster: str
    topology: str
    image: str
    slices: Annotated[int, AT_LEAST_1] = 1
    folder: str = "/app"

    def __post_init__(self) -> None:
        pod(self.topology)

    @property
    def actions(self) -> Mapping[str, str]:
        return ACTIONS

    def files(self, job: Job) -> dict[str, str]:
        return {"env": "".join(f"{pair}\n" for pair in job.env)}

    def steps(self, action: str, job: Job, folder: str) -> list[Step]:
        where = (f"--cluster={self.cluster}", f"--project={self.project}", f"--zone={self.zone}")
        named = (f"--workload={job.name}", *where)
        command = f"cd {shlex.quote(self.folder)} && exec {shlex.join(job.on_slices(self.slices))}"
        create = (
            f"--tpu-type={pod(self.topology).accelerator}",
            f"--num-slices={self.slices}",
            f"--docker-image={self.image}",
            f"--max-restarts={job.restarts}",
            f"--env-file={folder}/env",
            f"--command={command}",
        )
        return {
            "submit": [Step(("xpk", "workload", "create", *named, *create))],
            "status": [Step(("xpk", "workload", "list", *where, f"--filter-by-job={job.name}"))],
            "logs": [Step(("kubectl", "logs", "--follow", f"--selector=jobset.sigs.k8s.io/jobset-name={job.name}"))],
            "delete": [Step(("xpk", "workload", "delete", *named))],
        }[action]
