"""The tables of a local index, as numbered migrations.

A document's row in ``generations`` is one version of it: staged (``visible`` 0) while it is written, then the one
that is found. A page's vectors are bytes of a segment; a segment's bytes that no row points to are dead.
"""

from __future__ import annotations

import sqlite3

from .checksums import SINCE, VERDICTS_SINCE, seal_all, seal_verdicts

APPLICATION = 0x76697361  # "visa": tells an index from other SQLite files

MIGRATIONS = (
    """
    CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), settings TEXT NOT NULL, changes INTEGER NOT NULL);
    INSERT INTO state VALUES (1, '{}', 0);

    CREATE TABLE generations (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, content TEXT NOT NULL, settings TEXT NOT NULL,
        media_type TEXT NOT NULL, state TEXT NOT NULL, pages INTEGER NOT NULL, indexed INTEGER NOT NULL,
        failed INTEGER NOT NULL, path BLOB NOT NULL, renderer TEXT NOT NULL, visible INTEGER NOT NULL,
        writer TEXT NOT NULL, added REAL NOT NULL);
    CREATE UNIQUE INDEX generations_visible ON generations (name) WHERE visible;
    CREATE INDEX generations_name ON generations (name);
    CREATE INDEX generations_staged ON generations (writer) WHERE NOT visible;
    CREATE INDEX generations_content ON generations (content);

    CREATE TABLE tags (
        generation INTEGER NOT NULL REFERENCES generations ON DELETE CASCADE, key TEXT NOT NULL, value TEXT NOT NULL,
        PRIMARY KEY (generation, key)) WITHOUT ROWID;

    CREATE TABLE pages (
        id INTEGER PRIMARY KEY AUTOINCREMENT, generation INTEGER NOT NULL REFERENCES generations ON DELETE CASCADE,
        number INTEGER NOT NULL, width REAL NOT NULL, height REAL NOT NULL, text_source TEXT NOT NULL,
        drawn REAL NOT NULL, length INTEGER NOT NULL, UNIQUE (generation, number));
    CREATE TABLE page_texts (
        page INTEGER PRIMARY KEY REFERENCES pages ON DELETE CASCADE, text TEXT NOT NULL, words BLOB NOT NULL,
        terms TEXT NOT NULL);

    CREATE TABLE legs (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, dim INTEGER NOT NULL);
    CREATE TABLE segments (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE);
    CREATE TABLE page_vectors (
        leg INTEGER NOT NULL REFERENCES legs, page INTEGER NOT NULL REFERENCES pages ON DELETE CASCADE,
        segment INTEGER NOT NULL REFERENCES segments, offset INTEGER NOT NULL, count INTEGER NOT NULL,
        scale REAL NOT NULL, crc INTEGER NOT NULL, chance REAL, PRIMARY KEY (leg, page)) WITHOUT ROWID;
    CREATE INDEX page_vectors_page ON page_vectors (page);
    CREATE INDEX page_vectors_segment ON page_vectors (segment);
    CREATE TABLE places (
        page INTEGER NOT NULL REFERENCES pages ON DELETE CASCADE, leg INTEGER NOT NULL REFERENCES legs,
        data BLOB NOT NULL, PRIMARY KEY (page, leg));

    CREATE TABLE failures (
        generation INTEGER NOT NULL REFERENCES generations ON DELETE CASCADE, page INTEGER, reason TEXT NOT NULL,
        message TEXT NOT NULL);
    CREATE UNIQUE INDEX failures_page ON failures (generation, ifnull(page, 0));

    CREATE TABLE originals (content TEXT PRIMARY KEY, link BLOB);
    CREATE TABLE images (
        generation INTEGER NOT NULL REFERENCES generations ON DELETE CASCADE, page INTEGER NOT NULL, file TEXT NOT NULL,
        PRIMARY KEY (generation, page));
    CREATE INDEX images_file ON images (file);

    -- The terms are made by visrag.fulltext; the tokeniser only parts them at spaces.
    CREATE VIRTUAL TABLE fulltext USING fts5 (
        terms, content='page_texts', content_rowid='page', columnsize=0, tokenize="ascii tokenchars '.'");
    CREATE VIRTUAL TABLE fulltext_terms USING fts5vocab (fulltext, instance);
    """,
    """
    CREATE TABLE jobs (
        generation INTEGER PRIMARY KEY REFERENCES generations ON DELETE CASCADE, uri TEXT NOT NULL,
        options TEXT NOT NULL, tags TEXT, queued REAL NOT NULL);
    -- Handed out where "sent" is set, held by a worker where "holder" is.
    CREATE TABLE pieces (
        id TEXT PRIMARY KEY, generation INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE, queue TEXT NOT NULL,
        pages TEXT NOT NULL, count INTEGER NOT NULL, turn REAL NOT NULL, attempts INTEGER NOT NULL, sent REAL,
        holder TEXT, until REAL);
    CREATE INDEX pieces_turn ON pieces (queue, turn);
    CREATE INDEX pieces_generation ON pieces (generation);
    CREATE INDEX pieces_until ON pieces (until) WHERE holder IS NOT NULL;
    """,
    """
    -- Known by names, not by a generation: it stays when its document is replaced or removed.
    CREATE TABLE feedback (
        review TEXT NOT NULL, question TEXT NOT NULL, document TEXT NOT NULL, page INTEGER NOT NULL,
        reviewer TEXT NOT NULL, verdict TEXT, note TEXT NOT NULL, time REAL NOT NULL,
        PRIMARY KEY (review, question, document, page, reviewer)) WITHOUT ROWID;
    """,
    """
    -- See visrag.store.checksums.
    ALTER TABLE state ADD COLUMN crc INTEGER;
    ALTER TABLE generations ADD COLUMN facts TEXT;
    ALTER TABLE pages ADD COLUMN crc INTEGER;
    """,
    """
    ALTER TABLE feedback ADD COLUMN crc INTEGER;
    """,
)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring an index, or an empty file, to the newest form; each step is one transaction."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script};")
        if number == SINCE:
            seal_all(connection)
        if number == VERDICTS_SINCE:
            seal_verdicts(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
