"""Command lines and configuration files of the cluster's programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dev.cluster.addresses import Addresses
from dev.cluster.binaries import CNI_PLUGINS, KUBERNETES_VERSION
from dev.cluster.processes import Service

DOMAIN = "cluster.local"
NODE_IMAGE = "localhost/panosc-dev/node:1"
NAMESPACE_OF_PROVISIONER = "local-path-storage"
USERS = ("kube-proxy", "coredns", "local-path-provisioner")  # kubeadm writes those of the other programs
_ETCD = "http://127.0.0.1:2379"
_READY_PORT = 8181
_PODS_PER_NODE = 250


@dataclass(frozen=True)
class Configuration:
    """All that the programs of one cluster are told.

    Parameters
    ----------
    name
        Name of the cluster, and of its node.
    addresses
        Its address ranges.
    state
        Folder of what lasts: certificates, etcd's data, images, volumes, logs.
    runtime
        Folder of what ends with the processes: sockets, process ids.
    """

    name: str
    addresses: Addresses
    state: Path
    runtime: Path

    @property
    def pki(self) -> Path:
        """Folder of the certificates and kubeconfigs."""
        return self.state / "pki"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig (kubeadm's name for the one of the group system:masters)."""
        return self.pki / "super-admin.conf"

    @property
    def ca(self) -> Path:
        """Certificate of the cluster's authority."""
        return self.pki / "ca.crt"

    @property
    def volumes(self) -> Path:
        """Folder of the default StorageClass's volumes."""
        return self.state / "volumes"

    @property
    def _plugins(self) -> Path:
        """Folder of volume plugins, of which there are none."""
        return self.state / "kubelet" / "volume-plugins"

    @property
    def containerd_socket(self) -> Path:
        """Socket of containerd."""
        return self.runtime / "containerd.sock"

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://{self.addresses.endpoint}"

    @property
    def dns_ready(self) -> str:
        """URL that answers once the DNS knows the cluster."""
        return f"http://{self.addresses.node}:{_READY_PORT}/ready"

    @property
    def cgroup(self) -> str:
        """Name of the cluster's control group."""
        return f"panosc-{self.name}"

    def files(self) -> dict[Path, str]:
        """Return the text of each configuration file by its path."""
        return {
            self.runtime / "kubeadm.yaml": yaml.safe_dump_all(self._kubeadm()),
            self.runtime / "containerd.toml": self._containerd(),
            self.runtime / "cni" / "10-ptp.conflist": json.dumps(self._cni(), indent=1),
            self.runtime / "kubelet.yaml": yaml.safe_dump(self._kubelet()),
            self.runtime / "resolv.conf": "",  # no name server but the cluster's own
            self.runtime / "Corefile": self._corefile(),
            self.runtime / "volumes.json": json.dumps(self._volumes()),
            self.runtime / "volume-helper.yaml": yaml.safe_dump(_HELPER_POD),
        }

    def control_plane(self, kubernetes: Path) -> list[Service]:
        """Return the programs of the control plane in the order of their start.

        Parameters
        ----------
        kubernetes
            Folder of the programs.
        """
        manager = self.pki / "controller-manager.conf"
        return [
            Service(
                "etcd",
                [
                    kubernetes / "etcd",
                    f"--data-dir={self.state / 'etcd'}",
                    f"--listen-client-urls={_ETCD}",
                    f"--advertise-client-urls={_ETCD}",
                    "--listen-peer-urls=http://127.0.0.1:2380",
                    "--unsafe-no-fsync",  # quick, and a development cluster may lose its data with the power
                ],
            ),
            Service(
                "kube-apiserver",
                [
                    kubernetes / "kube-apiserver",
                    f"--etcd-servers={_ETCD}",
                    f"--advertise-address={self.addresses.node}",
                    f"--secure-port={self.addresses.port}",
                    f"--service-cluster-ip-range={self.addresses.services}",
                    "--authorization-mode=Node,RBAC",
                    "--enable-admission-plugins=NodeRestriction",
                    f"--client-ca-file={self.ca}",
                    f"--tls-cert-file={self.pki / 'apiserver.crt'}",
                    f"--tls-private-key-file={self.pki / 'apiserver.key'}",
                    f"--kubelet-client-certificate={self.pki / 'apiserver-kubelet-client.crt'}",
                    f"--kubelet-client-key={self.pki / 'apiserver-kubelet-client.key'}",
                    "--kubelet-preferred-address-types=InternalIP",
                    f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
                    f"--service-account-key-file={self.pki / 'sa.pub'}",
                    f"--service-account-signing-key-file={self.pki / 'sa.key'}",
                    f"--requestheader-client-ca-file={self.pki / 'front-proxy-ca.crt'}",
                    "--requestheader-allowed-names=front-proxy-client",
                    "--requestheader-username-headers=X-Remote-User",
                    "--requestheader-group-headers=X-Remote-Group",
                    "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                    f"--proxy-client-cert-file={self.pki / 'front-proxy-client.crt'}",
                    f"--proxy-client-key-file={self.pki / 'front-proxy-client.key'}",
                    "--allow-privileged=true",
                ],
            ),
            Service(
                "kube-controller-manager",
                [
                    kubernetes / "kube-controller-manager",
                    f"--kubeconfig={manager}",
                    f"--authentication-kubeconfig={manager}",
                    f"--authorization-kubeconfig={manager}",
                    "--bind-address=127.0.0.1",
                    "--leader-elect=false",
                    "--kube-api-qps=200",
                    "--kube-api-burst=400",
                    "--use-service-account-credentials=true",
                    f"--service-account-private-key-file={self.pki / 'sa.key'}",
                    f"--root-ca-file={self.ca}",
                    f"--cluster-signing-cert-file={self.ca}",
                    f"--cluster-signing-key-file={self.pki / 'ca.key'}",
                    f"--service-cluster-ip-range={self.addresses.services}",
                    f"--flex-volume-plugin-dir={self._plugins}",
                ],
            ),
        ]

    def node(self, kubernetes: Path, coredns: Path, provisioner: Path) -> list[Service]:
        """Return the programs that run pods, in the order of their start.

        Parameters
        ----------
        kubernetes, coredns, provisioner
            Folders of the programs.
        """
        scheduler = self.pki / "scheduler.conf"
        return [
            Service("containerd", ["containerd", f"--config={self.runtime / 'containerd.toml'}"]),
            Service(
                "kube-scheduler",
                [
                    kubernetes / "kube-scheduler",
                    f"--kubeconfig={scheduler}",
                    f"--authentication-kubeconfig={scheduler}",
                    f"--authorization-kubeconfig={scheduler}",
                    "--bind-address=127.0.0.1",
                    "--leader-elect=false",
                    "--kube-api-qps=200",
                    "--kube-api-burst=400",
                ],
            ),
            Service(
                "kubelet",
                [
                    kubernetes / "kubelet",
                    f"--config={self.runtime / 'kubelet.yaml'}",
                    f"--kubeconfig={self.pki / 'kubelet.conf'}",
                    f"--root-dir={self.state / 'kubelet'}",
                    f"--cert-dir={self.state / 'kubelet' / 'pki'}",
                    f"--hostname-override={self.name}",
                    f"--node-ip={self.addresses.node}",
                ],
            ),
            Service(
                "kube-proxy",
                [
                    kubernetes / "kube-proxy",
                    f"--kubeconfig={self.pki / 'kube-proxy.conf'}",
                    f"--hostname-override={self.name}",
                    "--proxy-mode=iptables",
                    f"--cluster-cidr={self.addresses.pods}",
                    "--conntrack-max-per-core=0",  # these settings are the host's: hands off
                    "--conntrack-min=0",
                    "--conntrack-tcp-timeout-established=0",
                    "--conntrack-tcp-timeout-close-wait=0",
                ],
            ),
            Service("coredns", [coredns / "coredns", "-conf", self.runtime / "Corefile"]),
            Service(
                "local-path-provisioner",
                [
                    provisioner / "local-path-provisioner",
                    "start",
                    f"--kubeconfig={self.pki / 'local-path-provisioner.conf'}",
                    f"--namespace={NAMESPACE_OF_PROVISIONER}",
                    "--service-account-name=helper",
                    f"--helper-image={NODE_IMAGE}",
                    f"--config={self.runtime / 'volumes.json'}",
                    f"--helper-pod-file={self.runtime / 'volume-helper.yaml'}",
                ],
            ),
        ]

    def _kubeadm(self) -> list[Mapping[str, Any]]:
        """Return what the certificates and kubeconfigs are for; kubeadm starts nothing here."""
        return [
            {
                "apiVersion": "kubeadm.k8s.io/v1beta4",
                "kind": "InitConfiguration",
                "localAPIEndpoint": {
                    "advertiseAddress": str(self.addresses.node),
                    "bindPort": self.addresses.port,
                },
                "nodeRegistration": {"name": self.name, "criSocket": f"unix://{self.containerd_socket}"},
            },
            {
                "apiVersion": "kubeadm.k8s.io/v1beta4",
                "kind": "ClusterConfiguration",
                "clusterName": self.name,
                "kubernetesVersion": KUBERNETES_VERSION,
                "controlPlaneEndpoint": self.addresses.endpoint,
                "certificatesDir": str(self.pki),
                "certificateValidityPeriod": "87600h",
                "caCertificateValidityPeriod": "87600h",
                "encryptionAlgorithm": "ECDSA-P256",
                "etcd": {"external": {"endpoints": [_ETCD]}},
                "networking": {
                    "dnsDomain": DOMAIN,
                    "podSubnet": str(self.addresses.pods),
                    "serviceSubnet": str(self.addresses.services),
                },
            },
        ]

    def _kubelet(self) -> Mapping[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{self.containerd_socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "clusterDomain": DOMAIN,
            "clusterDNS": [str(self.addresses.node)],
            "resolvConf": str(self.runtime / "resolv.conf"),
            "podLogsDir": str(self.state / "pods"),
            "volumePluginDir": str(self._plugins),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.ca)},
            },
            "authorization": {"mode": "Webhook"},
            # The host's disk is other people's too: only a full one stops pods, and images stay.
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
            },
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "maxPods": _PODS_PER_NODE,
            "kubeAPIQPS": 200,
            "kubeAPIBurst": 400,
            "eventRecordQPS": 100,
            "eventBurst": 200,
        }

    def _cni(self) -> Mapping[str, Any]:
        """Return the pods' network: a link to the node each, so that all traffic passes its rules."""
        return {
            "cniVersion": "0.4.0",
            "name": self.cgroup,
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": False,
                    "ipam": {
                        "type": "host-local",
                        "subnet": str(self.addresses.pods),
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": str(self.runtime / "addresses"),
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }

    def _containerd(self) -> str:
        return f"""\
version = 2
root = "{self.state / "containerd"}"
state = "{self.runtime / "containerd"}"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{self.containerd_socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self.state / "containerd" / "opt"}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{NODE_IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true # without CAP_SYS_RESOURCE nobody may lower it
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{self.runtime / "cni"}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{self.runtime / "runc"}"
        SystemdCgroup = false
"""

    def _corefile(self) -> str:
        return f"""\
{DOMAIN} in-addr.arpa {{
    bind {self.addresses.node}
    ready {self.addresses.node}:{_READY_PORT}
    errors
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {self.pki / "coredns.conf"}
        pods insecure
        ttl 5
    }}
}}
. {{
    bind {self.addresses.node}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""

    def _volumes(self) -> Mapping[str, Any]:
        return {
            "nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [str(self.volumes)]}],
            "setupCommand": "/volume",
            "teardownCommand": "/volume",
        }


_HELPER_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "helper-pod"},
    "spec": {
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": "helper-pod",
                "imagePullPolicy": "Never",
                "image": NODE_IMAGE,
                "securityContext": {"runAsUser": 0, "runAsGroup": 0},
            }
        ],
    },
}
