-- The tables of one tenant. The same file runs in every tenant schema, as one batch in one
-- transaction, with `search_path` = tenant_…, public, pg_temp: unqualified names only.
--
-- What holds for all nine tables:
--
-- * `tenant_id` is always this tenant: `this_tenant()` returns its id and was made with the schema.
--   Instead of a foreign key to public.tenants, which makes concurrent sign-ups deadlock and a
--   DROP SCHEMA lock every tenant out. The CHECK promises more, too: not just some tenant, this one.
-- * Foreign keys stay inside the schema, and each one has an index that begins with its column:
--   without it, deleting one user scans whole tables.
-- * Text with a CHECK, not enum types: the pooled connections send unnamed statements, and the
--   driver would look an enum up with a named one.
-- * No triggers. Each would be one more catalog row for each table of each tenant, and the library
--   is the only writer: its UPDATEs say `updated_at = now()` themselves.
-- * Every index is paid for once per tenant, so each one below has a query it serves. Lists page by
--   (created_at, id); social_accounts, workflows and teams do without that index, because sorting
--   a few dozen rows costs less than keeping it ten thousand times over.
-- * No GRANT: the schema's default privileges cover tables, sequences and later migrations.

CREATE TABLE users (
    id                 uuid         PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id          uuid         NOT NULL DEFAULT this_tenant(),
    email              varchar(255) NOT NULL,
    password_hash      varchar(255),          -- null: signs in elsewhere; never leaves the service
    name               varchar(255) NOT NULL,
    role               varchar(50)  NOT NULL, -- no CHECK: which roles there are is the product's choice
    avatar_url         text,
    email_verified     boolean      NOT NULL DEFAULT false,
    two_factor_enabled boolean      NOT NULL DEFAULT false,
    last_login_at      timestamptz,
    created_at         timestamptz  NOT NULL DEFAULT now(),
    updated_at         timestamptz  NOT NULL DEFAULT now(),

    CONSTRAINT users_tenant_id_email_key UNIQUE (tenant_id, email),

    CONSTRAINT users_tenant_id_check CHECK (tenant_id = this_tenant()),
    -- Stored in lower case, so that the plain UNIQUE above also stops Ann@… beside ann@…, and a
    -- lookup needs no second index. COLLATE "C" folds ASCII only, alike on every server.
    CONSTRAINT users_email_check CHECK (email = lower(email COLLATE "C"))
);

CREATE INDEX users_created_at_idx ON users (created_at, id);

CREATE TABLE social_accounts (
    id                     uuid         PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id              uuid         NOT NULL DEFAULT this_tenant(),
    platform               varchar(50)  NOT NULL,  -- a key of public.platform_metadata
    handle                 varchar(255) NOT NULL,
    external_id            varchar(255) NOT NULL,  -- the platform's own id; handles get renamed
    credentials            bytea,                  -- encrypted by the application; never leaves the service
    credentials_expires_at timestamptz,
    status                 text         NOT NULL DEFAULT 'connected',
    connected_by           uuid,
    created_at             timestamptz  NOT NULL DEFAULT now(),
    updated_at             timestamptz  NOT NULL DEFAULT now(),

    -- The same account connected twice would post everything twice.
    CONSTRAINT social_accounts_platform_external_id_key UNIQUE (platform, external_id),

    CONSTRAINT social_accounts_connected_by_fkey
        FOREIGN KEY (connected_by) REFERENCES users (id) ON DELETE SET NULL,

    CONSTRAINT social_accounts_tenant_id_check CHECK (tenant_id = this_tenant()),
    CONSTRAINT social_accounts_status_check
        CHECK (status IN ('connected', 'expired', 'revoked', 'disconnected'))
);

CREATE INDEX social_accounts_connected_by_idx ON social_accounts (connected_by);

CREATE TABLE workflows (
    id         uuid         PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id  uuid         NOT NULL DEFAULT this_tenant(),
    name       varchar(255) NOT NULL,
    definition jsonb        NOT NULL DEFAULT '{}',
    is_active  boolean      NOT NULL DEFAULT true,
    created_by uuid,
    created_at timestamptz  NOT NULL DEFAULT now(),
    updated_at timestamptz  NOT NULL DEFAULT now(),

    CONSTRAINT workflows_created_by_fkey
        FOREIGN KEY (created_by) REFERENCES users (id) ON DELETE SET NULL,

    CONSTRAINT workflows_tenant_id_check  CHECK (tenant_id = this_tenant()),
    CONSTRAINT workflows_definition_check CHECK (jsonb_typeof(definition) = 'object')
);

CREATE INDEX workflows_created_by_idx ON workflows (created_by);

CREATE TABLE teams (
    id          uuid         PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id   uuid         NOT NULL DEFAULT this_tenant(),
    name        varchar(255) NOT NULL,
    description text         NOT NULL DEFAULT '',
    lead_id     uuid,
    -- An array, since a join table would be a tenth one. The price: no foreign key, so a reader
    -- joins users and thereby drops members who are gone. Bounded, as such a list is read whole.
    member_ids  uuid[]       NOT NULL DEFAULT '{}',
    created_at  timestamptz  NOT NULL DEFAULT now(),
    updated_at  timestamptz  NOT NULL DEFAULT now(),

    CONSTRAINT teams_lead_id_fkey
        FOREIGN KEY (lead_id) REFERENCES users (id) ON DELETE SET NULL,

    CONSTRAINT teams_tenant_id_check  CHECK (tenant_id = this_tenant()),
    CONSTRAINT teams_member_ids_check
        CHECK (cardinality(member_ids) <= 1000 AND array_position(member_ids, NULL) IS NULL)
);

CREATE INDEX teams_lead_id_idx ON teams (lead_id);

CREATE TABLE content (
    id           uuid         PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id    uuid         NOT NULL DEFAULT this_tenant(),
    number       bigint       GENERATED ALWAYS AS IDENTITY,  -- for people: "have a look at #42"
    title        varchar(255) NOT NULL,
    body         text         NOT NULL DEFAULT '',
    status       text         NOT NULL DEFAULT 'draft',
    author_id    uuid,                                       -- null: the author is gone, the work stays
    media        jsonb        NOT NULL DEFAULT '[]',
    tags         text[]       NOT NULL DEFAULT '{}',
    scheduled_at timestamptz,
    published_at timestamptz,
    created_at   timestamptz  NOT NULL DEFAULT now(),
    updated_at   timestamptz  NOT NULL DEFAULT now(),

    CONSTRAINT content_number_key UNIQUE (number),

    CONSTRAINT content_author_id_fkey
        FOREIGN KEY (author_id) REFERENCES users (id) ON DELETE SET NULL,

    CONSTRAINT content_tenant_id_check CHECK (tenant_id = this_tenant()),
    CONSTRAINT content_status_check
        CHECK (status IN ('draft', 'in_review', 'approved', 'scheduled', 'published', 'archived')),
    CONSTRAINT content_scheduled_at_check CHECK (status <> 'scheduled' OR scheduled_at IS NOT NULL),
    CONSTRAINT content_published_at_check CHECK (status <> 'published' OR published_at IS NOT NULL),
    CONSTRAINT content_media_check        CHECK (jsonb_typeof(media) = 'array'),
    CONSTRAINT content_tags_check
        CHECK (cardinality(tags) <= 100 AND array_position(tags, NULL) IS NULL)
);

CREATE INDEX content_created_at_idx ON content (created_at, id);
CREATE INDEX content_author_id_idx  ON content (author_id, created_at, id);
-- The calendar. Most rows never get a date.
CREATE INDEX content_scheduled_at_idx ON content (scheduled_at) WHERE scheduled_at IS NOT NULL;

CREATE TABLE publish_jobs (
    id                uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id         uuid        NOT NULL DEFAULT this_tenant(),
    content_id        uuid        NOT NULL,
    social_account_id uuid        NOT NULL,
    workflow_id       uuid,                   -- null: published by hand
    status            text        NOT NULL DEFAULT 'queued',
    run_at            timestamptz NOT NULL DEFAULT now(),
    attempts          integer     NOT NULL DEFAULT 0,
    last_error        text,
    external_post_id  varchar(255),
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT publish_jobs_content_id_fkey
        FOREIGN KEY (content_id) REFERENCES content (id) ON DELETE CASCADE,
    CONSTRAINT publish_jobs_social_account_id_fkey
        FOREIGN KEY (social_account_id) REFERENCES social_accounts (id) ON DELETE CASCADE,
    CONSTRAINT publish_jobs_workflow_id_fkey
        FOREIGN KEY (workflow_id) REFERENCES workflows (id) ON DELETE SET NULL,

    CONSTRAINT publish_jobs_tenant_id_check CHECK (tenant_id = this_tenant()),
    CONSTRAINT publish_jobs_status_check
        CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    CONSTRAINT publish_jobs_attempts_check CHECK (attempts >= 0)
);

CREATE INDEX publish_jobs_created_at_idx        ON publish_jobs (created_at, id);
CREATE INDEX publish_jobs_content_id_idx        ON publish_jobs (content_id);
CREATE INDEX publish_jobs_social_account_id_idx ON publish_jobs (social_account_id);
CREATE INDEX publish_jobs_workflow_id_idx       ON publish_jobs (workflow_id);
-- What is due? Small, however long the history grows.
CREATE INDEX publish_jobs_due_idx ON publish_jobs (run_at) WHERE status = 'queued';

-- Counts over a period, not ratios: a rate is worked out on reading, since averaging rates is wrong.
-- `metric` is bounded and all else fixed, so that this table, the largest, needs no TOAST.
CREATE TABLE analytics (
    id                uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id         uuid        NOT NULL DEFAULT this_tenant(),
    social_account_id uuid        NOT NULL,
    content_id        uuid,                   -- null: about the account (followers, say)
    metric            varchar(50) NOT NULL,
    value             bigint      NOT NULL,
    period_start      timestamptz NOT NULL,
    period_end        timestamptz NOT NULL,   -- exclusive
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),

    -- What a repeated import runs into, and updates. A null content_id must collide too. Begins
    -- with social_account_id, so it is that foreign key's index as well.
    CONSTRAINT analytics_observation_key UNIQUE NULLS NOT DISTINCT
        (social_account_id, content_id, metric, period_start, period_end),

    CONSTRAINT analytics_social_account_id_fkey
        FOREIGN KEY (social_account_id) REFERENCES social_accounts (id) ON DELETE CASCADE,
    CONSTRAINT analytics_content_id_fkey
        FOREIGN KEY (content_id) REFERENCES content (id) ON DELETE CASCADE,

    CONSTRAINT analytics_tenant_id_check CHECK (tenant_id = this_tenant()),
    CONSTRAINT analytics_metric_check    CHECK (metric <> ''),
    CONSTRAINT analytics_value_check     CHECK (value >= 0),
    CONSTRAINT analytics_period_check    CHECK (period_end > period_start)
);

CREATE INDEX analytics_created_at_idx ON analytics (created_at, id);
CREATE INDEX analytics_content_id_idx ON analytics (content_id);

CREATE TABLE comments (
    id         uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id  uuid        NOT NULL DEFAULT this_tenant(),
    content_id uuid        NOT NULL,
    author_id  uuid,                          -- null: the author is gone, the thread stays readable
    parent_id  uuid,                          -- null: opens a thread
    body       text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT comments_content_id_fkey
        FOREIGN KEY (content_id) REFERENCES content (id) ON DELETE CASCADE,
    CONSTRAINT comments_author_id_fkey
        FOREIGN KEY (author_id) REFERENCES users (id) ON DELETE SET NULL,
    CONSTRAINT comments_parent_id_fkey
        FOREIGN KEY (parent_id) REFERENCES comments (id) ON DELETE CASCADE,

    CONSTRAINT comments_tenant_id_check CHECK (tenant_id = this_tenant()),
    CONSTRAINT comments_parent_id_check CHECK (parent_id <> id),
    CONSTRAINT comments_body_check      CHECK (body <> '')
);

CREATE INDEX comments_created_at_idx ON comments (created_at, id);
CREATE INDEX comments_content_id_idx ON comments (content_id, created_at, id);
CREATE INDEX comments_author_id_idx  ON comments (author_id);
CREATE INDEX comments_parent_id_idx  ON comments (parent_id);

CREATE TABLE notifications (
    id         uuid         PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id  uuid         NOT NULL DEFAULT this_tenant(),
    user_id    uuid         NOT NULL,
    kind       varchar(50)  NOT NULL,
    title      varchar(255) NOT NULL,
    body       text         NOT NULL DEFAULT '',
    data       jsonb        NOT NULL DEFAULT '{}',
    read_at    timestamptz,                   -- null: unread
    created_at timestamptz  NOT NULL DEFAULT now(),
    updated_at timestamptz  NOT NULL DEFAULT now(),

    CONSTRAINT notifications_user_id_fkey
        FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,

    CONSTRAINT notifications_tenant_id_check CHECK (tenant_id = this_tenant()),
    CONSTRAINT notifications_kind_check      CHECK (kind <> ''),
    CONSTRAINT notifications_data_check      CHECK (jsonb_typeof(data) = 'object')
);

CREATE INDEX notifications_created_at_idx ON notifications (created_at, id);
CREATE INDEX notifications_user_id_idx    ON notifications (user_id, created_at, id);
