// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0
/*
 * Real H.264 out of vicodec, by the two simplest macroblocks that there are: I_PCM, which holds its samples as they are, and
 * P_Skip, which repeats the picture before. A key frame is all I_PCM; a P picture renews as many macroblocks as the bit rate
 * pays for, going on where the one before stopped, and skips the rest. Every decoder shows it.
 *
 * Included by vicodec-core.c, which build.sh patches.
 */

struct peercam_h264 {
	/* Controls. */
	u32 bitrate;
	u32 i_period;
	u32 profile;
	u32 level;
	bool force_key;
	bool repeat_headers;
	/* State. */
	unsigned int made;
	u64 last_ns;
	bool begun;
	unsigned int since_key;
	unsigned int idr_id;
	unsigned int next_mb;
	/* Writer. */
	u8 *out;
	size_t used, room;
	unsigned int zeros;
	u8 byte;
	unsigned int bits;
};

static unsigned int h264_stall_after;
module_param(h264_stall_after, uint, 0644);
MODULE_PARM_DESC(h264_stall_after, " the encoder takes pictures but gives nothing after so many (0: never)");

static unsigned int h264_skip_every;
module_param(h264_skip_every, uint, 0644);
MODULE_PARM_DESC(h264_skip_every, " every so manieth picture becomes an empty buffer (0: none)");

static void h264_raw_byte(struct peercam_h264 *h, u8 byte)
{
	if (h->used < h->room)
		h->out[h->used] = byte;
	h->used++;
}

/* A byte of a NAL unit: two zeros are kept from looking like a start code. */
static void h264_byte(struct peercam_h264 *h, u8 byte)
{
	if (h->zeros >= 2 && byte <= 3) {
		h264_raw_byte(h, 3);
		h->zeros = 0;
	}
	h264_raw_byte(h, byte);
	h->zeros = byte ? 0 : h->zeros + 1;
}

static void h264_bit(struct peercam_h264 *h, unsigned int bit)
{
	h->byte = h->byte << 1 | (bit & 1);
	if (++h->bits == 8) {
		h264_byte(h, h->byte);
		h->bits = 0;
	}
}

static void h264_u(struct peercam_h264 *h, unsigned int count, u32 value)
{
	while (count--)
		h264_bit(h, value >> count);
}

static void h264_ue(struct peercam_h264 *h, u32 value)
{
	unsigned int length = fls(value + 1);

	h264_u(h, length - 1, 0);
	h264_u(h, length, value + 1);
}

static void h264_align(struct peercam_h264 *h)
{
	while (h->bits)
		h264_bit(h, 0);
}

static void h264_nal(struct peercam_h264 *h, u8 header)
{
	static const u8 start[] = { 0, 0, 0, 1 };
	int i;

	for (i = 0; i < 4; i++)
		h264_raw_byte(h, start[i]);
	h->zeros = 0;
	h->bits = 0;
	h264_byte(h, header);
}

static void h264_end(struct peercam_h264 *h)
{
	h264_bit(h, 1);
	h264_align(h);
}

/* The kernel's menus as H.264 writes them: profile_idc with constraint flags, level_idc. */
static u32 h264_profile(u32 entry)
{
	switch (entry) {
	case V4L2_MPEG_VIDEO_H264_PROFILE_CONSTRAINED_BASELINE:
		return 0x42e0;
	case V4L2_MPEG_VIDEO_H264_PROFILE_MAIN:
		return 0x4d00;
	default:
		return 0x4200;
	}
}

static u8 h264_level(u32 entry)
{
	static const u8 levels[] = { 10, 11, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51 };

	return entry < ARRAY_SIZE(levels) ? levels[entry] : 40;
}

static void h264_headers(struct peercam_h264 *h, unsigned int width, unsigned int height)
{
	unsigned int wide = DIV_ROUND_UP(width, 16), high = DIV_ROUND_UP(height, 16);

	h264_nal(h, 0x67);
	h264_u(h, 16, h264_profile(h->profile));
	h264_u(h, 8, h264_level(h->level));
	h264_ue(h, 0); /* seq_parameter_set_id */
	h264_ue(h, 4); /* log2_max_frame_num_minus4: 8 bits */
	h264_ue(h, 2); /* pic_order_cnt_type: as decoded */
	h264_ue(h, 1); /* max_num_ref_frames */
	h264_u(h, 1, 0);
	h264_ue(h, wide - 1);
	h264_ue(h, high - 1);
	h264_u(h, 2, 3); /* frame_mbs_only, direct_8x8_inference */
	h264_u(h, 1, 1); /* cropping, in units of two pixels */
	h264_ue(h, 0);
	h264_ue(h, (wide * 16 - width) / 2);
	h264_ue(h, 0);
	h264_ue(h, (high * 16 - height) / 2);
	h264_u(h, 1, 0); /* no VUI */
	h264_end(h);

	h264_nal(h, 0x68);
	h264_ue(h, 0);
	h264_ue(h, 0);
	h264_u(h, 2, 0); /* CAVLC; no bottom field order */
	h264_ue(h, 0); /* one slice group */
	h264_ue(h, 0);
	h264_ue(h, 0);
	h264_u(h, 3, 0); /* no weighting */
	h264_ue(h, 0);
	h264_ue(h, 0);
	h264_ue(h, 0);
	h264_u(h, 3, 4); /* the deblocking filter can be turned off */
	h264_end(h);
}

/* A sample of the source: plane 0 is Y, 1 U, 2 V. */
static u8 h264_sample(const struct v4l2_fwht_state *state, const u8 *in, int plane, unsigned int x, unsigned int y)
{
	unsigned int stride = state->stride, tall = state->coded_height;

	x = min(x, (plane ? state->visible_width / 2 : state->visible_width) - 1);
	y = min(y, (plane ? state->visible_height / 2 : state->visible_height) - 1);
	switch (state->info->id) {
	case V4L2_PIX_FMT_YUYV:
		if (!plane)
			return in[y * stride + x * 2];
		return in[y * 2 * stride + x * 4 + (plane == 1 ? 1 : 3)];
	case V4L2_PIX_FMT_NV12:
		if (!plane)
			return in[y * stride + x];
		return in[stride * tall + y * stride + x * 2 + (plane == 2)];
	default: /* YU12 */
		if (!plane)
			return in[y * stride + x];
		return in[stride * tall + (plane == 2 ? stride * tall / 4 : 0) + y * (stride / 2) + x];
	}
}

static void h264_pcm(struct peercam_h264 *h, const struct v4l2_fwht_state *state, const u8 *in, unsigned int mb, bool in_p)
{
	unsigned int wide = DIV_ROUND_UP(state->visible_width, 16);
	unsigned int mx = mb % wide, my = mb / wide, plane, x, y;

	h264_ue(h, in_p ? 30 : 25);
	h264_align(h);
	for (plane = 0; plane < 3; plane++) {
		unsigned int edge = plane ? 8 : 16;

		for (y = 0; y < edge; y++)
			for (x = 0; x < edge; x++)
				h264_byte(h, h264_sample(state, in, plane, mx * edge + x, my * edge + y));
	}
}

/* How many of a P picture's macroblocks the time since the last one pays for; a macroblock takes 385 bytes and a bit. */
static unsigned int h264_paid(struct peercam_h264 *h, u64 ns)
{
	u64 passed = min_t(u64, ns - h->last_ns, NSEC_PER_SEC);

	return div_u64(div_u64(passed * h->bitrate, NSEC_PER_SEC), 386 * 8);
}

/*
 * Encodes one picture of capture time `ns`; gives back its bytes (0: skipped) and whether it is a key frame. Less than 0: no room.
 */
static int h264_encode(struct peercam_h264 *h, const struct v4l2_fwht_state *state, u64 ns, const u8 *in, u8 *out, size_t room,
		       bool *key)
{
	unsigned int mbs = DIV_ROUND_UP(state->visible_width, 16) * DIV_ROUND_UP(state->visible_height, 16);
	unsigned int mb, renewed, skipped = 0;

	h->made++;
	*key = false;
	if (h264_skip_every && h->made % h264_skip_every == 0)
		return 0;
	*key = !h->begun || h->force_key || h->since_key >= h->i_period;
	h->out = out;
	h->room = room;
	h->used = 0;
	if (*key) {
		h->since_key = 0;
		h->idr_id ^= 1;
		h->next_mb = 0;
		if (!h->begun || h->repeat_headers)
			h264_headers(h, state->visible_width, state->visible_height);
	}
	h->begun = true;
	h->force_key = false;

	h264_nal(h, *key ? 0x65 : 0x41);
	h264_ue(h, 0); /* first_mb_in_slice */
	h264_ue(h, *key ? 7 : 5); /* slice_type */
	h264_ue(h, 0);
	h264_u(h, 8, h->since_key & 0xff); /* frame_num */
	if (*key) {
		h264_ue(h, h->idr_id);
		h264_u(h, 2, 0); /* dec_ref_pic_marking */
	} else {
		h264_u(h, 3, 0); /* no override, no reordering, sliding window */
	}
	h264_ue(h, 0); /* slice_qp_delta */
	h264_ue(h, 1); /* no deblocking */
	if (*key) {
		for (mb = 0; mb < mbs; mb++)
			h264_pcm(h, state, in, mb, false);
	} else {
		renewed = clamp(h264_paid(h, ns), 1U, mbs);
		for (mb = 0; mb < mbs; mb++) {
			if ((mb + mbs - h->next_mb) % mbs >= renewed) {
				skipped++;
				continue;
			}
			h264_ue(h, skipped);
			skipped = 0;
			h264_pcm(h, state, in, mb, true);
		}
		if (skipped)
			h264_ue(h, skipped);
		h->next_mb = (h->next_mb + renewed) % mbs;
	}
	h264_end(h);
	h->since_key++;
	h->last_ns = ns;
	return h->used > room ? -ENOSPC : h->used;
}
