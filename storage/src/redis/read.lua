-- Reads members of a sorted set by their first 8 bytes, each with the head and the body that it
-- shares with others ('' and '' where it has its own). Changes nothing.
--
-- ARGV: the first 8 bytes to begin with, the most members, the bytes after which it stops, where in
-- a member the row begins. KEYS: the set; a list with an element for each member of it. Before the
-- members: '1' if the list has more, which others have put there, or else '0'; '1' if there may be
-- more members, or else '0'.

local list_len = KEYS[2] and redis.pcall('LLEN', KEYS[2])
local longer = type(list_len) == 'number' and list_len > redis.call('ZCARD', KEYS[1])
local found, bytes, limit = { longer and '1' or '0', '1' }, 0, tonumber(ARGV[2])
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
  if #members < step then
    if bytes <= tonumber(ARGV[3]) then found[2] = '0' end
    break
  end
  from, limit = '(' .. members[#members], limit - step
end
return found
