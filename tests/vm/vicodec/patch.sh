#!/bin/bash
# Makes the kernel's vicodec an H.264 encoder: patch.sh VICODEC-CORE.C. The kernel's source is not part of this repository; what
# is put into it is.
set -euo pipefail
file=$1

# Its coded format is called H.264 (the decoder's too: nobody must take that for an encoder), and is.
sed -Ei 's/V4L2_PIX_FMT_FWHT([^_])/V4L2_PIX_FMT_H264\1/' "$file"

# Small pictures too, as a camera's low rung has.
sed -Ei 's/^(#define MIN_WIDTH[[:blank:]]+)640U/\1160U/; s/^(#define MIN_HEIGHT[[:blank:]]+)360U/\190U/' "$file"
grep -Eq '^#define MIN_HEIGHT[[:blank:]]+90U' "$file" || { echo "patch.sh: $file has another least size" >&2; exit 1; }

# after LINE-PATTERN: what comes on stdin goes behind the first line that matches; before: in front of it.
insert() {
  local where=$1 pattern=$2 text
  text=$(cat)
  TEXT=$text awk -v pattern="$pattern" -v where="$where" '
    !done && $0 ~ pattern {
      done = 1
      if (where == "before") print ENVIRON["TEXT"]
      if (where != "instead") print
      else print ENVIRON["TEXT"]
      if (where == "after") print ENVIRON["TEXT"]
      next
    }
    { print }
    END { exit !done }' "$file" > "$file.new" || {
    echo "patch.sh: $file has no line like: $pattern" >&2
    exit 1
  }
  mv "$file.new" "$file"
}

insert after '#include "codec-v4l2-fwht.h"' << 'END'
#include "h264.c"
END

insert after 'struct v4l2_fwht_state[ \t]+state;' << 'END'
	struct peercam_h264	h264;
END

insert instead 'comp_sz_or_errcode = v4l2_fwht_encode' << 'END'
		{
			bool key;

			comp_sz_or_errcode = h264_encode(&ctx->h264, state, src_vb->vb2_buf.timestamp, p_src, p_dst,
							 vb2_plane_size(&dst_vb->vb2_buf, 0), &key);
			dst_vb->flags &= ~(V4L2_BUF_FLAG_KEYFRAME | V4L2_BUF_FLAG_PFRAME);
			dst_vb->flags |= key ? V4L2_BUF_FLAG_KEYFRAME : V4L2_BUF_FLAG_PFRAME;
		}
END

# A firmware that hangs: pictures are taken, nothing comes out.
insert after 'src_buf = v4l2_m2m_next_src_buf\(ctx->fh.m2m_ctx\);' << 'END'
	if (ctx->is_enc && h264_stall_after && ctx->h264.made >= h264_stall_after) {
		src_buf = v4l2_m2m_src_buf_remove(ctx->fh.m2m_ctx);
		v4l2_m2m_buf_done(src_buf, VB2_BUF_STATE_DONE);
		v4l2_m2m_job_finish(dev->stateful_enc.m2m_dev, ctx->fh.m2m_ctx);
		return;
	}
END

insert before 'case V4L2_CID_FWHT_I_FRAME_QP:' << 'END'
	case V4L2_CID_MPEG_VIDEO_BITRATE:
		ctx->h264.bitrate = ctrl->val;
		return 0;
	case V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME:
		ctx->h264.force_key = true;
		return 0;
	case V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER:
		ctx->h264.repeat_headers = ctrl->val;
		return 0;
	case V4L2_CID_MPEG_VIDEO_H264_I_PERIOD:
		ctx->h264.i_period = ctrl->val;
		return 0;
	case V4L2_CID_MPEG_VIDEO_H264_PROFILE:
		ctx->h264.profile = ctrl->val;
		return 0;
	case V4L2_CID_MPEG_VIDEO_H264_LEVEL:
		ctx->h264.level = ctrl->val;
		return 0;
END

# With the ranges and defaults of bcm2835-codec, as far as they are known.
insert after 'v4l2_ctrl_handler_init\(hdl, 5\);' << 'END'
	if (ctx->is_enc) {
		v4l2_ctrl_new_std(hdl, &vicodec_ctrl_ops, V4L2_CID_MPEG_VIDEO_BITRATE, 25 * 1000, 25 * 1000 * 1000, 25 * 1000,
				  10 * 1000 * 1000);
		v4l2_ctrl_new_std(hdl, &vicodec_ctrl_ops, V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, 0, 0, 0, 0);
		v4l2_ctrl_new_std(hdl, &vicodec_ctrl_ops, V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER, 0, 1, 1, 0);
		v4l2_ctrl_new_std(hdl, &vicodec_ctrl_ops, V4L2_CID_MPEG_VIDEO_H264_I_PERIOD, 0, 0x7fffffff, 1, 60);
		v4l2_ctrl_new_std_menu(hdl, &vicodec_ctrl_ops, V4L2_CID_MPEG_VIDEO_H264_PROFILE,
				       V4L2_MPEG_VIDEO_H264_PROFILE_MAIN, 0, V4L2_MPEG_VIDEO_H264_PROFILE_MAIN);
		v4l2_ctrl_new_std_menu(hdl, &vicodec_ctrl_ops, V4L2_CID_MPEG_VIDEO_H264_LEVEL,
				       V4L2_MPEG_VIDEO_H264_LEVEL_5_1, 0, V4L2_MPEG_VIDEO_H264_LEVEL_4_0);
	}
END
