-- Schema version 3: what later clients of the simple_im system read from its users themselves
-- (specs/simple-im.md section 7b), where it is not there yet.

ALTER TABLE users ADD COLUMN IF NOT EXISTS avatar VARCHAR(300) NOT NULL DEFAULT '';
