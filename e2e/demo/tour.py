"""The demo, step by step, each with its time; and on failure what one would look at first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import yaml

from e2e.demo.question import Answer, ask
from e2e.demo.watch import KIND, Body, wait_ready
from e2e.demo.where import Where
from e2e.helm import Helm
from e2e.kubectl import Kubectl, KubectlError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "smollm2.yaml"
CHART = ROOT / "charts" / "paceline"
SYSTEM = "paceline-system"
NAMESPACE = "default"
OPERATOR = "deployment/paceline-operator"
QUESTION = "What is the capital of France?"
READY_TIMEOUT_S = 300


@dataclass
class Tour:
    """One run of the demo on one cluster."""

    where: Where
    helm: Helm
    times: list[tuple[str, float]] = field(default_factory=list)

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(words=self.where.kubectl, namespace=NAMESPACE)

    @property
    def system(self) -> Kubectl:
        return self.kubectl.in_namespace(SYSTEM)

    @property
    def name(self) -> str:
        manifest = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
        return str(manifest["metadata"]["name"])

    def run(self) -> None:
        click.secho(f"Paceline on {self.where.title}", bold=True)
        with self._step("the cluster"):
            self.where.start()
        with self._step("the images"):
            self.where.bring_images()
        with self._step("helm upgrade --install paceline"):
            self._install()
        with self._step(f"kubectl apply -f {EXAMPLE.relative_to(ROOT)}, until Ready"):
            self.kubectl.run("apply", "--server-side", "-f", str(EXAMPLE))
            service = wait_ready(self.kubectl, self.name, timeout_s=READY_TIMEOUT_S, tell=_tell)
        with self._step("a question, through the OpenAI endpoint"):
            answer = self._ask(service)
        self._show(answer)

    def _install(self) -> None:
        # With the restricted Pod Security Standard enforced: what Paceline starts there must pass it.
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.kubectl.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": labels}}
        )
        ran_before = self.system.run("get", OPERATOR, "--ignore-not-found").strip()
        flags = ("--namespace", SYSTEM, *self.where.helm_flags, "--wait", "--timeout", "120s")
        self.helm.run("upgrade", "--install", "paceline", str(CHART), *flags, timeout_s=150)
        if ran_before:
            # The image may be new under the same tag, which Helm cannot see. No service notices a restart.
            self.system.run("rollout", "restart", OPERATOR)
            self.system.run("rollout", "status", OPERATOR, "--timeout=120s", timeout_s=130)

    def _ask(self, service: Body) -> Answer:
        cluster_ip = self.kubectl.get("service", self.name)["spec"]["clusterIP"]
        names = service["spec"]["model"].get("servedNames") or [self.name]
        with self.where.reach(self.name, cluster_ip=cluster_ip) as url:
            click.echo(f"   POST {url}/v1/chat/completions")
            click.secho(f"   {QUESTION}", fg="cyan")
            click.echo("   ", nl=False)
            answer = ask(
                url,
                model=names[0],
                question=QUESTION,
                max_tokens=48,
                timeout_s=120,
                show=lambda piece: click.secho(piece, fg="green", nl=False),
            )
            click.echo()
        return answer

    def _show(self, answer: Answer) -> None:
        click.echo(
            f"   first token after {answer.time_to_first_token_s * 1000:.0f} ms,"
            f" the whole answer after {answer.total_s:.2f} s"
        )
        click.echo()
        click.secho("$ kubectl get inferenceservices", bold=True)
        click.echo(self.kubectl.run("get", KIND))
        for what, seconds in self.times:
            click.echo(f"{seconds:7.1f} s  {what}")
        click.echo(f"{sum(seconds for _, seconds in self.times):7.1f} s  in all")
        click.echo()
        click.secho("What to try next", bold=True)
        for line in self._next():
            click.echo(f"  {line}")

    def _next(self) -> list[str]:
        scale = '{"spec":{"scaling":{"replicas":2}}}'
        return [
            self.where.hint,
            "kubectl get inferenceservices --watch",
            f"kubectl describe inferenceservice {self.name}",
            f"kubectl patch inferenceservice {self.name} --type merge -p '{scale}'",
            "kubectl explain inferenceservice.spec.slo",
            f"kubectl delete inferenceservice {self.name}",
            "make clean     # stops the cluster; caches stay",
        ]

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        click.secho(f"== {what}", bold=True)
        started_s = time.monotonic()
        yield
        took_s = time.monotonic() - started_s
        self.times.append((what, took_s))
        click.echo(f"   {took_s:.1f} s")

    def explain_failure(self) -> None:
        """What a person would type next, typed for them. What cannot be had is left out."""
        looks = (
            (NAMESPACE, "describe", KIND, self.name),
            (NAMESPACE, "get", "pods", "-o", "wide"),
            (NAMESPACE, "get", "events", "--sort-by=.lastTimestamp"),
            (NAMESPACE, "logs", "-l", "paceline.dev/component=engine", "--tail=40", "--prefix"),
            (SYSTEM, "get", "pods", "-o", "wide"),
            (SYSTEM, "logs", OPERATOR, "--tail=40"),
        )
        for namespace, *words in looks:
            try:
                text = self.kubectl.in_namespace(namespace).run(*words)
            except (KubectlError, OSError):
                continue
            if text.strip():
                click.secho(f"$ kubectl -n {namespace} {' '.join(words)}", bold=True, err=True)
                click.echo(text, err=True)


def _tell(line: str) -> None:
    click.echo(f"   {line}")
