-- Reads members of a sorted set by their first 8 bytes, each with the head and the body that it
-- shares with others ('' and '' where it has its own). Changes nothing.
--
-- ARGV: the first 8 bytes to begin with, the most members, the bytes after which it stops, where in
-- a member the row begins. KEYS: the set.

local found, bytes, limit = {}, 0, tonumber(ARGV[2])
local from, at = '[' .. ARGV[1], tonumber(ARGV[4])
while limit > 0 and bytes <= tonumber(ARGV[3]) do
  local step = math.min(limit, 64)
  local members = redis.call('ZRANGEBYLEX', KEYS[1], from, '+', 'LIMIT', 0, step)
  for _, member in ipairs(members) do
    local shared = { '', '' }
    if member:byte(at + 10) >= 2 then
      shared = redis.call('HMGET', 'ringpost_body_' .. member:sub(at + 11, at + 26), 'head', 'body')
    end
    for _, part in ipairs({ member, shared[1] or '', shared[2] or '' }) do
      found[#found + 1] = part
    end
    bytes = bytes + struct.unpack('>I4', member, at + 35)
    if bytes > tonumber(ARGV[3]) then break end
  end
  if #members < step then break end
  from, limit = '(' .. members[#members], limit - step
end
return found
