import multiprocessing
from pathlib import Path

import pytest
import sqlalchemy as sa

from ftlab_kit import store as stores
from ftlab_kit.errors import Conflict, InputError, OutOfRoom
from ftlab_kit.store import Store
from ftlab_kit.workspace import now


@pytest.fixture
def store(tmp_path: Path):
    store = Store(tmp_path / "ftlab.db")
    yield store
    store.close()


def add(store: Store, name: str) -> int:
    return store.insert("configs", name=name, settings={}, created_at=now())


def test_a_row_comes_out_as_it_went_in(store: Store):
    at = now()
    store.insert("configs", name="hues", settings={"a": [1]}, created_at=at)
    assert store.get("configs") == {"name": "hues", "settings": {"a": [1]}, "created_at": at}


def test_get_returns_the_newest_match_or_none(store: Store):
    add(store, "a")
    add(store, "b")
    assert store.get("configs", name=["a", "b"])["name"] == "b"
    assert store.get("configs", name="c") is None


def test_update_is_a_compare_and_set(store: Store):
    add(store, "a")
    assert store.update("configs", {"name": "a"}, name="b") == 1
    assert store.update("configs", {"name": "a"}, name="c") == 0


def test_upsert_writes_over_a_row_of_the_same_key(store: Store):
    for value in (1, 2):
        store.upsert("configs", {"name": "mine"}, settings={"a": value}, created_at=now())
    (row,) = store.rows("configs")
    assert row["settings"] == {"a": 2}


def test_insert_new_adds_a_key_once(store: Store):
    values = {"settings": {}, "created_at": now()}
    assert store.insert_new("configs", name="a", **values)
    assert not store.insert_new("configs", name="a", **values)


def test_rows_begin_after_a_value(store: Store):
    for name in "abc":
        add(store, name)
    assert [row["name"] for row in store.rows("configs", after="a")] == ["b", "c"]


def test_a_transaction_that_fails_leaves_nothing(store: Store):
    with pytest.raises(ZeroDivisionError), store.transaction() as connection:
        connection.execute(
            sa.insert(stores.TABLES.tables["configs"]).values(
                name="a", settings={}, created_at=now()
            )
        )
        1 / 0  # noqa: B018
    assert store.rows("configs") == []


def add_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a later release does: today's schema gains a column, and a migration adds it."""
    later = sa.MetaData()
    for table in stores.TABLES.sorted_tables:
        table.to_metadata(later)
    later.tables["jobs"].append_column(sa.Column("remark", sa.String))

    def m003_remark(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE jobs ADD COLUMN remark VARCHAR"))

    monkeypatch.setattr(stores, "TABLES", later)
    monkeypatch.setattr(stores, "MIGRATIONS", [*stores.MIGRATIONS, m003_remark])


@pytest.mark.parametrize("is_old", [True, False])
def test_a_later_schema_reaches_old_and_new_workspaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_old: bool
):
    if is_old:
        Store(tmp_path / "ftlab.db").close()
    add_a_column(monkeypatch)
    for _ in range(2):
        store = Store(tmp_path / "ftlab.db")
        assert store.rows("jobs", remark="x") == []
        store.close()


def test_a_newer_schema_is_refused(tmp_path: Path):
    store = Store(tmp_path / "ftlab.db")
    store.update("schema", {}, version=99)
    store.close()
    with pytest.raises(Conflict, match="schema version 99; this kit reads versions up to"):
        Store(tmp_path / "ftlab.db")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path):
    (tmp_path / "ftlab.db").write_text("this is a letter, and a rather long one at that" * 20)
    with pytest.raises(InputError, match="is not a database"):
        Store(tmp_path / "ftlab.db")


def test_a_full_disk_is_reported_and_loses_nothing(store: Store):
    add(store, "before")
    with store.transaction() as connection:
        pages = connection.execute(sa.text("PRAGMA page_count")).scalar()
        connection.execute(sa.text(f"PRAGMA max_page_count={pages}"))
    with pytest.raises(OutOfRoom, match="disk is full"):
        store.insert("configs", name="big", settings={"a": "x" * 100_000}, created_at=now())
    assert [row["name"] for row in store.rows("configs")] == ["before"]


def _write_many(path: Path, who: int) -> None:
    store = Store(path)
    for number in range(100):
        add(store, f"{who}-{number}")
        store.rows("configs")
    store.close()


def test_four_processes_on_one_store_see_no_lock_and_lose_no_row(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "ftlab.db"
    workers = [context.Process(target=_write_many, args=(path, who)) for who in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    store = Store(path)
    assert len(store.rows("configs")) == 400
    store.close()


def test_a_workspace_from_before_there_were_kinds_is_brought_up_to_date(tmp_path: Path):
    path = tmp_path / "lab.db"
    pairs, chats = (tmp_path / f"{name}.jsonl" for name in ("pairs", "chats"))
    pairs.write_text('{"prompt":[],"chosen":[],"rejected":[]}\n')
    chats.write_text('{"messages":[{"role":"user","content":"chosen"}]}\n')
    at = f"'{now():%Y-%m-%d %H:%M:%S}'"
    old = Store(path)
    with old.transaction() as connection:
        for column in ("kind", "derivation"):
            connection.exec_driver_sql(f"ALTER TABLE dataset_versions DROP COLUMN {column}")
        connection.exec_driver_sql("ALTER TABLE metrics DROP COLUMN cpu_utilisation")
        for name in ("qualities", "exports", "documents"):
            connection.exec_driver_sql(f"DROP TABLE {name}")
        connection.exec_driver_sql("UPDATE schema SET version = 2")
        for number, file in enumerate((pairs, chats, tmp_path / "gone.jsonl")):
            connection.exec_driver_sql(
                "INSERT INTO dataset_versions (key, dataset, side, n_rows, n_refused, "
                "content_sha256, path, created_at, added_at) "
                f"VALUES ('{number}', 'rows', 'all', 1, 0, '', '{file}', {at}, {at})"
            )
    old.close()
    new = Store(path)
    assert [row["kind"] for row in new.rows("dataset_versions")] == ["preference", "chat", "chat"]
    assert new.rows("dataset_versions")[0]["derivation"] == {}
    assert new.insert_new("qualities", key="k", content_sha256="", facts={}, created_at=now())
    new.close()


def test_evaluations_from_before_rows_had_scores_are_kept(tmp_path: Path):
    path = tmp_path / "lab.db"
    at = f"'{now():%Y-%m-%d %H:%M:%S}'"
    old = Store(path)
    with old.transaction() as connection:
        for name in ("exports", "documents"):
            connection.exec_driver_sql(f"DROP TABLE {name}")
        connection.exec_driver_sql("ALTER TABLE metrics DROP COLUMN cpu_utilisation")
        for column in ("step", "counts", "n_tokens", "cost_usd"):
            connection.exec_driver_sql(f"ALTER TABLE evaluations DROP COLUMN {column}")
        version = old.insert(
            "dataset_versions", key="k", dataset="rows", side="all", n_rows=1, n_refused=0,
            content_sha256="", path="", created_at=now(), added_at=now(), derivation={},
        )  # fmt: skip
        connection.exec_driver_sql(
            "INSERT INTO evaluations (target, dataset_version_id, n_rows, scores, details, "
            f"samples, seconds, created_at) VALUES ('tiny', {version}, 1, '{{\"bleu\": 1.5}}', "
            f"'{{}}', '[]', 2.0, {at})"
        )
        connection.exec_driver_sql("UPDATE schema SET version = 3")
    old.close()
    new = Store(path)
    (row,) = new.rows("evaluations")
    assert (row["scores"], row["counts"], row["step"]) == ({"bleu": 1.5}, {}, None)
    assert new.rows("exports") == []
    new.close()


def test_the_names_of_an_older_kit_become_today_s(tmp_path: Path):
    path = tmp_path / "lab.db"
    old = Store(path)
    with old.transaction() as connection:
        for change in (
            "dataset_versions RENAME COLUMN derivation TO made",
            "events RENAME COLUMN author TO who",
            "events RENAME COLUMN arguments TO asked",
            "exports RENAME COLUMN format TO form",
            "documents RENAME COLUMN format TO form",
            "batch_sizes RENAME TO fits",
            "jobs DROP COLUMN kind",
        ):
            connection.exec_driver_sql(f"ALTER TABLE {change}")
        connection.exec_driver_sql("INSERT INTO fits VALUES ('tiny', 64, 'cpu', 8)")
        connection.exec_driver_sql(
            "INSERT INTO evaluations (target, n_rows, scores, details, counts, samples, seconds, "
            "created_at) VALUES ('tiny', 1, '{}', '{}', '{}', "
            """'[{"is_whole": true, "answer": "\\"is_whole\\": no"}]', 2.0, """
            "'2026-01-01 00:00:00')"
        )
        connection.exec_driver_sql(
            "INSERT INTO dataset_versions (key, dataset, side, n_rows, n_refused, content_sha256, "
            "path, made, created_at, added_at) VALUES ('k', 'rows', 'all', 1, 0, '', '', '{}', "
            "'2026-01-01 00:00:00', '2026-01-01 00:00:00')"
        )
        connection.exec_driver_sql(
            "INSERT INTO jobs (state, model, step, dataset_version_id, config, created_at) VALUES "
            "('completed', 'tiny', 1, 1, '{}', '2026-01-01 00:00:00')"
        )
        connection.exec_driver_sql(
            "INSERT INTO exports (job_id, step, form, precision, path, size_bytes, certificate, "
            "created_at) VALUES (1, 1, 'gguf', 'f16', '', 1, "
            """'{"least_same": 0.5, "most_change": 0.1}', '2026-01-01 00:00:00')"""
        )
        connection.exec_driver_sql("UPDATE schema SET version = 6")
    old.close()
    new = Store(path)
    assert new.rows("batch_sizes")[0]["rows"] == 8
    (sample,) = new.rows("evaluations")[0]["samples"]
    assert sample == {"is_complete": True, "answer": '"is_whole": no'}
    (export,) = new.rows("exports")
    assert export["format"] == "gguf"
    assert export["certificate"] == {"min_same": 0.5, "max_change": 0.1}
    assert [new.rows(name)[0][column] for name, column in (("jobs", "kind"),
            ("dataset_versions", "derivation"))] == ["train", {}]  # fmt: skip
    assert new.rows("events") == new.rows("documents") == []
    new.close()
