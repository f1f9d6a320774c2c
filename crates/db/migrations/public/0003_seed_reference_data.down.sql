-- Countries and time zones are ours entirely. Platforms may have been added since, by a product or
-- an operator, so only the seeded ones go.
-- tenantry: allow=delete-all reason="the up file filled these two tables, and nothing else does"

DELETE FROM platform_metadata
WHERE key IN (
    'bluesky', 'discord', 'facebook', 'google_business', 'instagram', 'linkedin', 'mastodon',
    'medium', 'pinterest', 'reddit', 'snapchat', 'telegram', 'threads', 'tiktok',
    'tumblr', 'twitch', 'whatsapp', 'wordpress', 'x', 'youtube'
);

DELETE FROM timezones;
DELETE FROM countries;
