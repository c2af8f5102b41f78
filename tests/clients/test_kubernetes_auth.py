"""Who the client of clusters is: contexts, programs, a pod's account, EKS by name, certificates, proxies."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from cloudtune.errors import CloudtuneError, NotAllowed, ServiceError, UsageError
from cloudtune.plan import Call
from cloudtune.rehearsal.certificates import make_certificate
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.kubernetes.cluster import Cluster
from cloudtune.rehearsal.stage import Stage
from tests.aws_place import aws_place

pytest.importorskip("kubernetes", reason="the Python client of Kubernetes is not installed")
pytest.importorskip("botocore", reason="the AWS SDK is not installed")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Identity() as identity, Stage(tmp_path / "cluster") as stage:
        made = Cluster(stage, identity, acts=False)
        with identity.applied(made.environment()):
            yield made
    assert stage.errors == ()


def ask(scope: str = "", **options: Any) -> Any:
    """Return who a client is that reaches a cluster by a scope."""
    from cloudtune.clients.kubernetes import KubernetesClient
    from cloudtune.clients.kubernetes_auth import Clusters

    client = KubernetesClient(clusters=Clusters(**options)) if options else KubernetesClient()
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {}}
    reply = client.send(Call(service="kubernetes", operation="create", parameters=review, region=scope or None))
    return reply["status"]["userInfo"]["username"]


def raised(scope: str = "", **options: Any) -> CloudtuneError:
    with pytest.raises(CloudtuneError) as error:
        ask(scope, **options)
    return error.value


def rewrite(cluster: Cluster, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change the user's kubeconfig."""
    config = yaml.safe_load((cluster.identity.home / ".kube/config").read_text())
    edit(config)
    cluster.identity.write(".kube/config", yaml.safe_dump(config))


def test_contexts_are_those_of_kubectl(cluster: Cluster) -> None:
    cluster.add_context("program", way="program")
    assert (ask(), ask("context:rehearsed"), ask("context:program")) == ("rehearsed", "rehearsed", "program")
    error = raised("context:nope")
    assert isinstance(error, UsageError)
    assert "kubectl config get-contexts" in str(error)
    assert isinstance(raised("something"), UsageError)


def test_a_kubeconfig_in_several_files_is_one(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    other = cluster.identity.write("other", "apiVersion: v1\nkind: Config\nclusters: []\nusers: []\ncontexts: []\n")
    monkeypatch.setenv("KUBECONFIG", f"{other}:{cluster.identity.home / '.kube/config'}")
    assert ask("context:rehearsed") == "rehearsed"


def test_without_a_kubeconfig_it_is_said_how_to_get_one(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config")
    assert "aws eks update-kubeconfig" in str(raised())


def test_a_program_that_fails_says_why(cluster: Cluster) -> None:
    def edit(config: dict[str, Any]) -> None:
        login = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "interactiveMode": "Never"}
        for user, script in zip(config["users"], ("echo sign in first >&2; exit 3", "x"), strict=False):
            user["user"] = {"exec": {**login, "args": ["-c", script]}}

    rewrite(cluster, edit)
    error = raised()
    assert isinstance(error, NotAllowed)
    assert error.passing
    assert "sign in first" in str(error)


def test_another_authority_is_not_trusted(cluster: Cluster) -> None:
    other = base64.b64encode(make_certificate().pem).decode()
    rewrite(cluster, lambda config: config["clusters"][0]["cluster"].update({"certificate-authority-data": other}))
    error = raised()
    assert isinstance(error, ServiceError)
    assert "is not trusted" in str(error)


def test_no_more_is_wanted_of_a_certificate_than_by_kubectl(cluster: Cluster) -> None:
    from cloudtune.clients.kubernetes_auth import Clusters

    context = Clusters().door("").pool.connection_pool_kw["ssl_context"]
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode == ssl.CERT_REQUIRED

    def edit(config: dict[str, Any]) -> None:
        del config["clusters"][0]["cluster"]["certificate-authority-data"]

    rewrite(cluster, edit)
    assert "is not trusted" in str(raised())
    rewrite(cluster, lambda config: config["clusters"][0]["cluster"].update({"insecure-skip-tls-verify": True}))
    with pytest.warns(Warning, match="Unverified HTTPS request"):
        assert ask() == "rehearsed"


def test_nobody_there_is_said_with_the_address(cluster: Cluster) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{bound.getsockname()[1]}"
        rewrite(cluster, lambda config: config["clusters"][0]["cluster"].update(server=url))
        error = raised()
    assert url in str(error)
    assert error.passing


def test_a_pod_has_its_own_account(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, _, port = cluster.url.rpartition("/")[2].partition(":")
    assert isinstance(raised("in-cluster"), UsageError)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    (tmp_path / "ca.crt").write_bytes(cluster.certificate.pem)
    token = tmp_path / "token"
    token.write_text(cluster.access.token("system:serviceaccount:default:tuner"))
    assert ask("in-cluster", service_account=tmp_path) == "system:serviceaccount:default:tuner"
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config")
    assert ask(service_account=tmp_path) == "system:serviceaccount:default:tuner"
    token.write_text("a token that was taken back")
    assert isinstance(raised("in-cluster", service_account=tmp_path), NotAllowed)


def test_eks_is_reached_by_name_and_region(tmp_path: Path) -> None:
    pytest.importorskip("moto", reason="moto is not installed")
    from cloudtune.clients.kubernetes import KubernetesClient
    from cloudtune.rehearsal.aws.clusters import Clusters as Eks

    with aws_place(tmp_path) as place:
        made = Cluster(place.stage, place.identity, name="tuning", acts=False)
        place.cloud.part(Eks).add(made)
        assert ask("eks:us-west-2/tuning").startswith(f"arn:aws:iam::{place.cloud.account}:user/")
        assert ask("eks:/tuning").startswith("arn:aws:iam::")
        client = KubernetesClient()
        listed = {"apiVersion": "v1", "kind": "Pod", "namespace": "default"}
        call = Call(service="kubernetes", operation="list", parameters=listed, region="eks:us-west-2/tuning")
        client.read(call)
        for _ in range(2):  # each token is good for a quarter of an hour
            place.stage.clock.push(901)
            client.read(call)
        calls = [one.status for one in place.stage.record.calls if one.operation == "list_pods"]
        assert calls == [200, 401, 200, 401, 200]
        assert "EKS has no cluster other in us-west-2" in str(raised("eks:us-west-2/other"))
        place.cloud.part(Eks).status["tuning"] = "CREATING"
        assert "has no endpoint yet" in str(raised("eks:us-west-2/tuning"))
        place.cloud.denied.add("eks:DescribeCluster")
        assert isinstance(raised("eks:us-west-2/tuning"), NotAllowed)


@pytest.mark.parametrize(
    ("region", "host"),
    [("us-west-2", "sts.us-west-2.amazonaws.com"), ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn")],
)
def test_a_token_is_a_request_to_the_service_of_the_region(
    region: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloudtune.clients.aws_auth import Account
    from cloudtune.clients.kubernetes_eks import _Signing

    with Identity() as identity, identity.applied({}):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREHEARSED")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
        signing = _Signing(Account(), region, "tuning", Call(service="aws.eks", operation="describe_cluster"))
        token = str(signing.token())
        assert signing.token() == token
    prefix, _, text = token.partition(".")
    assert prefix == "k8s-aws-v1"
    assert "=" not in text
    url = urlsplit(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode())
    query = dict(parse_qsl(url.query))
    assert (url.scheme, url.netloc, url.path) == ("https", host, "/")
    assert (query["Action"], query["X-Amz-Expires"]) == ("GetCallerIdentity", "60")
    assert query["X-Amz-SignedHeaders"] == "host;x-k8s-aws-id"
    assert query["X-Amz-Credential"].split("/")[2:] == [region, "sts", "aws4_request"]
    assert query["X-Amz-Security-Token"] == "session"


def test_a_token_for_another_cluster_is_not_taken(tmp_path: Path) -> None:
    pytest.importorskip("moto", reason="moto is not installed")
    from cloudtune.rehearsal.aws.clusters import Clusters as Eks

    with aws_place(tmp_path) as place:
        made = Cluster(place.stage, place.identity, name="tuning", acts=False)
        place.cloud.part(Eks).add(made)
        made.access.cluster = "another"
        error = raised("eks:us-west-2/tuning")
        assert isinstance(error, NotAllowed)
        assert "aws eks list-access-entries" in str(error)


class _Named(BaseHTTPRequestHandler):
    """Answers with the name in the client's certificate."""

    def do_GET(self) -> None:
        connection = self.connection
        assert isinstance(connection, ssl.SSLSocket)
        subject = dict(pair[0] for pair in connection.getpeercert()["subject"])  # type: ignore[index,misc]
        body = f'{{"gitVersion": "{subject["commonName"]}"}}'.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def test_a_certificate_says_who_one_is(cluster: Cluster, tmp_path: Path) -> None:
    from cloudtune.clients.kubernetes import KubernetesClient

    server, user = make_certificate(), make_certificate()
    context = server.context(tmp_path)
    context.load_verify_locations(cadata=user.pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    with HTTPServer(("127.0.0.1", 0), _Named) as https:
        https.socket = context.wrap_socket(https.socket, server_side=True)
        thread = threading.Thread(target=https.serve_forever, daemon=True)
        thread.start()
        coded = {
            name: base64.b64encode(data).decode() for name, data in (("certificate", user.pem), ("key", user.key_pem))
        }

        def edit(config: dict[str, Any]) -> None:
            authority = base64.b64encode(server.pem).decode()
            url = f"https://127.0.0.1:{https.server_address[1]}"
            config["clusters"][0]["cluster"] = {"server": url, "certificate-authority-data": authority}
            config["users"][0]["user"] = {f"client-{name}-data": value for name, value in coded.items()}

        rewrite(cluster, edit)
        assert KubernetesClient().read(Call(service="kubernetes", operation="version"))["gitVersion"] == "rehearsed"
        https.shutdown()
        thread.join()


class _Proxy(threading.Thread):
    """A proxy for one connection, which remembers where to."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.asked = ""
        self.start()

    def run(self) -> None:
        client, _ = self.listener.accept()
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        self.asked = head.split(b"\r\n")[0].decode()
        host, _, port = self.asked.split()[1].partition(":")
        server = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        other = threading.Thread(target=self.pump, args=(server, client), daemon=True)
        other.start()
        self.pump(client, server)
        other.join()
        for one in (client, server, self.listener):
            one.close()

    @staticmethod
    def pump(source: socket.socket, aim: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                aim.sendall(data)
            aim.shutdown(socket.SHUT_WR)


def test_a_proxy_of_the_kubeconfig_is_used(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloudtune.clients.kubernetes_auth import Clusters

    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    proxy = _Proxy()
    url = f"http://127.0.0.1:{proxy.listener.getsockname()[1]}"
    rewrite(cluster, lambda config: config["clusters"][0]["cluster"].update({"proxy-url": url}))
    clusters = Clusters()
    door = clusters.door("")
    answer = door.pool.request("GET", f"{door.url}/version", headers={**door.headers(), "connection": "close"})
    assert answer.status == 200
    assert proxy.asked.startswith(f"CONNECT {cluster.url.rpartition('/')[2]} ")
    proxy.join(60)
    assert not proxy.is_alive()
