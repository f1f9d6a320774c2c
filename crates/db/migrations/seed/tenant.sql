-- Rows for `migrate verify`, where those that it makes up itself are refused or too plain. Each statement
-- is tried by itself after each migration; one that does not fit the schema of that version is passed over.

INSERT INTO users (email, name, role) VALUES ('ann@example.invalid', 'Ann', 'owner');
INSERT INTO content (title, status, author_id, scheduled_at)
SELECT 'Hello', 'scheduled', id, now() FROM users ORDER BY created_at LIMIT 1;
INSERT INTO comments (content_id, author_id, body)
SELECT c.id, c.author_id, 'First' FROM content c ORDER BY c.created_at LIMIT 1;
